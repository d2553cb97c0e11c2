"""How the flow experts of a checkpoint generate, as the command line chooses it anew for one command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

from freqgan.errors import InputError, nearest
from freqgan.model.expert_settings import DEFAULT, GenerationSettings, Solver
from freqgan.model.settings import ModelSettings

SOLVERS: tuple[str, ...] = get_args(Solver)


@dataclass(frozen=True)
class GenerationOptions:
    """What takes the place of ``settings.generation`` of a checkpoint; None leaves what the checkpoint has.

    Attributes:
        evaluations: passes through the network for one sample.
        solver: heun or euler.
        condition_noise: strength of the noise on the bands that an expert sees, in their deviations.
        guidance: how far to lead away from each expert's guide.
        shift: where the steps lie, above 1 closer together near the noise.
        label_guidance: how far to lead away from what an expert makes without the label.

    """

    evaluations: int | None = None
    solver: str | None = None
    condition_noise: float | None = None
    guidance: float | None = None
    shift: float | None = None
    label_guidance: float | None = None

    def apply(self, settings: ModelSettings) -> GenerationSettings:
        """Return ``settings.generation`` with these options in it.

        Raises:
            InputError: the model has no flow experts, no guides, or the options do not go together.

        """
        chosen = self.given
        if not chosen:
            return settings.generation
        self._check_model(settings, self.names)
        if self.guidance is not None:
            chosen["guidance"] = {DEFAULT: self.guidance}
        generation = settings.generation.model_copy(update=chosen)
        if generation.solver == "heun" and generation.evaluations % 2:
            raise InputError(
                f"--evaluations {generation.evaluations}: it is odd, and every step of heun takes two; give an even "
                "number, or --solver euler"
            )
        return generation

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, by the names of their settings."""
        return {name: value for name, value in vars(self).items() if value is not None}

    @property
    def names(self) -> str:
        """The options that were given, as the command line calls them: "--evaluations, --solver"."""
        return ", ".join(map(_option, self.given))

    @property
    def arguments(self) -> list[str]:
        """The options that were given, as arguments of a command: ["--evaluations", "20"]."""
        return [text for name, value in self.given.items() for text in (_option(name), str(value))]

    def _check_model(self, settings: ModelSettings, given: str) -> None:
        if self.solver is not None and self.solver not in SOLVERS:
            near = nearest(self.solver, list(SOLVERS))
            raise InputError(f"--solver {self.solver}: no solver is called so{near}; there are {', '.join(SOLVERS)}")
        if not any(gan.kind == "flow" for gan in settings.band_plan().gans):
            raise InputError(
                f"{given}: the model has no flow experts, and all others generate in one pass; leave {given} out, or "
                "train with experts.default=flow"
            )
        if self.guidance and not settings.flow.guide_at:
            raise InputError(
                f"--guidance {self.guidance:g}: the flow experts of the model have no guides to lead away from; leave "
                "it out, or train with flow.guide_at=0.2"
            )
        if self.label_guidance and not (settings.classes and settings.flow.drop):
            raise InputError(
                f"--label-guidance {self.label_guidance:g}: the model has classes={settings.classes} and "
                f"flow.drop={settings.flow.drop:g}, so it has not learned to do without labels; leave it out, or train "
                "with classes and with flow.drop=0.1"
            )


AS_TRAINED = GenerationOptions()
"""Leaves all as the checkpoint has it."""


def options_for(generation: GenerationSettings, names: Sequence[str]) -> GenerationOptions:
    """Return the options that choose those settings ``names`` that ``generation`` has; guidance is one for all guides.

    Their order is that of the options.
    """
    values = {name: getattr(generation, name) for name in names}
    if "guidance" in values:
        values["guidance"] = values["guidance"].get(DEFAULT, 0.0)
    return GenerationOptions(**values)


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
