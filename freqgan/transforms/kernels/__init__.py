"""Compiled kernels of the transforms, for CPUs (Numba) and GPUs (Triton), and the choice of one for a tensor.

Every kernel computes what the plain tensor operations of the package above compute; none is imported before it is used.
"""
