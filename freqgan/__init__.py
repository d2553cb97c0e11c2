"""Tensors only: transforms, bands, noise, networks, losses, the step of one GAN, synthesis, metrics.

Nothing here knows a machine: no Ray, no storage, no process group. ``cluster/`` applies this mathematics to machines
and ``launch/`` brings it to people. Every step is a pure function of (state, step, inputs).
"""

__version__ = "0.1.0"
