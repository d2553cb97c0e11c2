"""The HTTP service of a trained model: ``application`` answers requests, ``replica`` is the worker on Ray Serve.

What is asked for is read by ``bodies`` and ``uploads``, drawn together by ``batch``, and written by ``packaging``;
``model_source`` says which version is to be served. Only ``deployment`` and ``replica`` know Ray.
"""
