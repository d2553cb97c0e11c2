"""Networks: residual blocks, generators, discriminators, attention; ``vgg`` is VGG19 with somebody else's weights.

They are built from shapes and sizes, and know nothing of bands, chains, losses or settings of a run.
"""
