"""Formulas of training, each beside its settings: losses, schedules, augmentation, averages of weights, health.

They are functions of tensors and numbers alone. They hold no networks and no state, and know no bands and no chain.
"""
