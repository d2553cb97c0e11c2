"""Faults of trainings at chosen and at random moments; ``python -m tests.chaos`` runs the whole campaign."""

from tests.chaos.faults import executors, killing, killing_uploaders, killing_writers, reading

__all__ = ["executors", "killing", "killing_uploaders", "killing_writers", "reading"]
