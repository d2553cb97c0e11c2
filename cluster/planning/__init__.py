"""Which device gets which stage, and how fast that is.

``cost_model`` says what stages cost on ``devices``. ``planner`` finds the best ``plan``: by ``bin_packing``, then by
what travels (``traffic``); ``placement`` gives actors slots, ``rebalancing`` moves them when nodes come and go.
``lower_bound`` proves how good a plan can be; ``simulation``, on the ``device_pool`` of a node, predicts images/s. All
computes on values, except ``profiler`` and who calls it (``contention``, ``training_rate``): they time steps here.
"""
