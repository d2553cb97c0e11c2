"""What training costs, in operators and arithmetic, and systems of equal cost to compare with.

``operator_count`` counts a step by running it; ``baselines`` makes the systems of a comparison from one model's
settings. Times of devices are in :mod:`cluster.planning`.
"""
