"""Models that stand alone: a folder of averaged weights that :func:`load_model` opens, and graphs for other runtimes.

Nothing here knows a run, a cluster or a bucket.
"""
