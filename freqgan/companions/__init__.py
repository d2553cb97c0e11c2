"""Companions: the other generators, of whole images, that the image stage blends with the chain of bands.

``protocol`` is what each has, ``kinds`` builds one by its name. ``adversarial`` are trained by discriminators, ``vae``,
``diffusion``, ``flow_matching``, ``glow`` and ``autoregressive`` by losses of their own, ``imported`` is any class.
"""
