"""How far generated images are from real ones, measured without downloaded weights.

Every module holds one family of metrics; ``evaluation`` lists them all and sets values beside floors. They are
functions of tensors of images: which images, and when, is for :mod:`cluster.evaluation` to say.
"""
