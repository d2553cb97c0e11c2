"""The executor whose stages are Ray actors; the only package that imports Ray.

``executor`` submits the calls of a step, ``actors`` and ``io_actors`` run them, ``worker_group`` and ``slots`` start
them on machines, ``replay_log`` and ``recovery`` repeat what a failure took, ``connection`` joins or starts a cluster,
``jobs`` talks to its dashboard and ``metrics`` to Prometheus. Nothing here computes: actors call :mod:`cluster.stages`.
"""
