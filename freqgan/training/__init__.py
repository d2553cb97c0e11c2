"""How a model is trained.

``experts`` builds the stage of a band by its kind: ``band_gan`` (a generator against its discriminator) or
``flow_matching``; ``image_stage`` blends. They use ``adam``, ``updates`` and ``rollback``. Steps are functions of
(state, step, inputs), see ``stage``; where they run, and in what order, is for ``cluster`` to say.
"""
