"""Scores of checkpoints and of images against real ones, at once or beside a training.

The metrics themselves are those of :mod:`freqgan.metrics`.
"""
