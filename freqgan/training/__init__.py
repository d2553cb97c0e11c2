"""How a model is trained: discriminators, optimisers, the steps of a band and of the image stage, rolling back.

Steps are functions of (state, step, inputs). Where they run, and in what order, is for ``cluster`` to say.
"""
