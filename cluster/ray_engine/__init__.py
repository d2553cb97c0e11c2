"""The executor whose stages are Ray actors; what else imports Ray is the deployment of :mod:`cluster.serving`.

``executor`` submits the calls of a step, ``actors`` and ``io_actors`` run them, ``worker_group`` starts these in
``slots`` on ``nodes``, ``replay_log`` keeps the calls, ``recovery`` finds out what a failure took and does what
``recovery_plan`` says about it, ``connection`` joins or starts a cluster, ``jobs`` talks to its dashboard and
``metrics`` to Prometheus. Nothing here computes: actors call :mod:`cluster.stages`.
"""

import os

# A call that comes after the end of a cluster, from a thread of Ray's own, must not start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
