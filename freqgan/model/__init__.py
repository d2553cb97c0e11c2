"""What a model is: its settings, the plan of its generators, noises, the chain, statistics of bands, generators.

Everything here is needed to draw a picture. Nothing here trains, and nothing knows discriminators or optimisers.
"""
