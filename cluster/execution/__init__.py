"""The loop over steps and its policies, whatever executes the stages.

``coordinator`` keeps a window of steps in flight and commits checkpoints, ``executor`` says what it asks of an
executor, ``inline`` is the one of a single process, ``failure_policy`` decides what follows from a failure,
``callbacks`` is how others watch. Nothing here knows Ray, and no tensor passes through the loop.
"""
