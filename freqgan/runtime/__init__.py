"""How a computation is run, whatever it computes.

``graph_capture`` records the kernels of a function and replays them, ``data_parallel`` says which part of a batch a
replica has, ``imports`` keeps the collector of garbage out of imports. Nothing here knows a GAN, and nothing knows how
replicas reach each other.
"""
