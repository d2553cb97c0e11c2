"""Tensors only: transforms, bands, noise, networks, losses, the step of one GAN, synthesis.

Nothing here knows a machine: no Ray, no storage, no process group. ``cluster/`` applies this
mathematics to machines and ``launch/`` to people.
"""

__version__ = "0.1.0"
