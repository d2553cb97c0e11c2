"""Clips of real things: pans over photographs and the videos of a package, trained on, and looked at."""
