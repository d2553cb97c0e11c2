"""Which device gets which stage, and how fast that is: costs, placement, proven bounds, simulation.

All of it is arithmetic on values but for the profiler, which takes the time of steps on this machine.
"""
