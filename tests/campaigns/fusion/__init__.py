"""Kills of workers of the jointly trained system, and groups that grow and shrink; see ``__main__``."""
