"""Which device gets which stage, and how fast that is; ``profiler``, ``contention`` and ``training_rate`` time steps.

``cost_model`` says what stages cost on ``devices``. ``planner`` finds the best ``plan`` by ``bin_packing`` and
``traffic``, ``placement`` gives actors slots, ``rebalancing`` moves them; ``lower_bound`` proves how good a plan can
be, ``simulation`` predicts images/s. At a free pace ``free_plan`` puts components on the ``offers`` of places by a
``schedule``; ``scaling`` compares that with pipelines and with ``data_parallel`` training.
"""
