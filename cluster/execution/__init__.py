"""The loop over steps and its policies, whatever executes the stages; and the executor that is one process.

Nothing here knows Ray.
"""
