"""Which device gets which stage, and how fast that is.

``devices`` describes machines, ``cost_model`` says what stages cost, ``planner`` and ``placement`` assign them,
``lower_bound`` proves how good a plan can be, ``simulation`` predicts images per second, ``rebalancing`` moves stages
between machines. All of it computes on values, except the profiler and what calls it, which time steps on this machine.
"""
