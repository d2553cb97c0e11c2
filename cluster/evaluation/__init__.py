"""Scores of checkpoints and of image files against real images.

``evaluate`` collects both and measures them; ``background`` does so beside a training, newest checkpoint first. Of flow
experts ``likelihood`` says how likely images are, ``quality_curves`` how good theirs are with few passes or with noise,
``sampler_search`` how they generate best. ``learned_networks`` has networks taught what real images show;
``feature_cache`` keeps them. The metrics are in :mod:`freqgan.metrics`, tables in ``launch``.
"""
