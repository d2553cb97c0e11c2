"""Scores of checkpoints and of image files against real images.

``evaluate`` collects both sets of images and measures them; ``background`` does so beside a training, newest checkpoint
first; ``likelihood`` says how likely images are under flow experts, ``over_evaluations`` how good theirs are with few
passes. ``learned_networks`` has networks taught what real images show; ``feature_cache`` keeps them. The metrics
themselves are in :mod:`freqgan.metrics`, tables and pages of scores in ``launch``.
"""
