"""Formulas of training, each with its settings: losses, schedules, augmentation, averages of weights, health.

Functions of tensors and numbers alone. They hold no networks and no state, and know no bands and no chain.
"""
