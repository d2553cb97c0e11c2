"""What people read in a run folder: logs of metrics, scores and failures, TensorBoard events, sample pictures.

These files grow by whole records while a run trains, and are cut where it is resumed. Checkpoints, which a run needs to
go on, are in :mod:`cluster.run`.
"""
