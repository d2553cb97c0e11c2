"""Compiled kernels of the transforms, for CPUs and GPUs, and which of them takes which tensor.

Every kernel computes what the plain tensor operations of the package above compute; none is imported before it is used.
"""
