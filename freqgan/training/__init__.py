"""How a model is trained.

``band_gan`` and ``image_stage`` are the two kinds of stages; both use ``gan_trainer`` (a generator against its
discriminator), ``adam``, ``updates`` and ``rollback``. Steps are functions of (state, step, inputs). Where they run,
and in what order, is for ``cluster`` to say.
"""
