"""Networks: residual blocks, generators, discriminators, attention.

They are built from shapes and sizes, and know nothing of bands, chains, losses or settings of a run.
"""
