"""People and schedulers: the command line, settings files, presets, progress, reports."""
