"""Faults of trainings at chosen and at random moments; ``python -m tests.campaigns.chaos`` runs the whole campaign."""

from tests.campaigns.chaos.faults import executors, killing, killing_uploaders, killing_writers, reading

__all__ = ["executors", "killing", "killing_uploaders", "killing_writers", "reading"]
