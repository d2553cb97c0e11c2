"""How a model is trained.

``experts`` builds the stage of a band by its kind: ``band_gan`` (a generator against its discriminator),
``flow_matching``, or ``distillation`` of a flow expert; ``image_stage`` blends. They use ``adam``, ``updates`` and
``rollback``. Steps are functions of (state, step, inputs), see ``stage``; where they run is for ``cluster`` to say.
"""
