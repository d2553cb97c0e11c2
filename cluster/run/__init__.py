"""What is stored about a run, and how it is opened: settings, data source, checkpoints, the registry of models.

Nothing here trains, scores or plans.
"""
