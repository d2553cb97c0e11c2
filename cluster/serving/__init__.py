"""The HTTP service of a trained model: ``application`` answers requests, ``replica`` is the worker on Ray Serve.

What is asked for is read by ``bodies``, drawn together by ``pass_queue`` and ``batch``, answered to images by
``uploads``, and written by ``packaging``; ``model_source`` says which version is to be served. ``deployment`` alone
knows Ray.
"""
