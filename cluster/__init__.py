"""Machines: from the bytes of storage, at the bottom, to the entry point of a training, at the top.

The packages, from floor to floor: ``storage``; ``data``; ``run``; ``evaluation`` and ``stages``; ``planning`` and
``execution``; ``ray_engine``; ``training``. A package imports only those on lower floors, and :mod:`freqgan`.
"""
