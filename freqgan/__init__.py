"""Tensors only: transforms, bands, noise, networks, losses, the step of one GAN, synthesis, metrics.

Nothing here knows a machine: no Ray, no storage, no process group. ``cluster/`` applies this mathematics to machines
and ``launch/`` brings it to people. Every step is a pure function of (state, step, inputs).

``freqgan.load_model(FOLDER)`` opens a model that ``freqgan export`` wrote.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from freqgan.version import VERSION

if TYPE_CHECKING:
    from freqgan.export.model_folder import load_model

__all__ = ["__version__", "load_model"]
__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: ``import freqgan`` alone imports no torch."""
    if name == "load_model":
        from freqgan.export.model_folder import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
