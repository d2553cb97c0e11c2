"""What people read in a run folder: logs of metrics, scores and failures, sample pictures. Not checkpoints."""
