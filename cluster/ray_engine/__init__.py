"""The executor whose stages are Ray actors: connection, actors, recovery, replay, metrics, jobs.

The only package that imports Ray.
"""
