"""A stage that diverges or collapses goes back to when it was well, alone, and goes on with a lower learning rate.

All of it is decided inside the stage by its own numbers, so every executor, and every replay, decides the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from torch import Tensor

from freqgan.errors import DivergedError
from freqgan.recipe.health import shows_collapse
from freqgan.recipe.settings import HealthSettings
from freqgan.tensor_dicts import Metrics, add_prefix, strip_prefix

GOOD = "good"
SET_BACK: dict[Literal["diverged", "collapsed"], str] = {
    "diverged": "set_back_diverged_to",
    "collapsed": "set_back_collapsed_to",
}
"""Names of the metrics that a step in which a stage was set back has besides: the step to whose state it went."""


class Trained(Protocol):
    """A stage: state that can be kept and put back, and a rate that can be lowered."""

    def tensors(self) -> dict[str, Tensor]:
        """Its state by name."""

    def scalars(self) -> dict[str, int]:
        """The rest of its state."""

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int]) -> None:
        """Puts both back."""

    def scale_rate(self, scale: float) -> None:
        """Multiplies the learning rates of the settings by ``scale`` from now on."""


class Stepped(Protocol):
    """What a step gives."""

    @property
    def metrics(self) -> Metrics:
        """Plain numbers, ``loss_d`` and ``sample_deviation`` among them."""


Result = TypeVar("Result", bound=Stepped)


class DivergenceGuard:
    """Runs the steps of ``stage`` and sets it back when they go wrong.

    Args:
        stage: whose present state is the first it can be set back to.
        settings: when and how.

    """

    def __init__(self, stage: Trained, settings: HealthSettings) -> None:
        self.stage, self.settings = stage, settings
        self.signs = self.setbacks = self.good_step = 0
        self.good_tensors: dict[str, Tensor] = {}
        self.good_scalars: dict[str, int] = {}
        self._keep(0)

    def run(self, step: int, act: Callable[[], Result]) -> Result:
        """The result of ``act``, the stage's step number ``step``.

        Where it diverges the step is done again from the state the stage is set back to; where it has collapsed the
        result stands and the next step begins there.

        Raises:
            DivergedError: it was set back ``most`` times before.

        """
        if step % self.settings.every == 0 and not self.signs:
            self._keep(step)
        why: Literal["diverged", "collapsed"] | None = None
        while True:
            try:
                result = act()
                break
            except DivergedError:
                if self.setbacks >= self.settings.most:
                    raise
                self._set_back()
                why = "diverged"
        self.signs = self.signs + 1 if shows_collapse(result.metrics, self.settings) else 0
        if self.signs >= self.settings.patience:
            if self.setbacks >= self.settings.most:
                raise DivergedError(
                    f"at step {step} the stage has collapsed once more after being set back {self.setbacks} times: "
                    f"the loss of its discriminator is {result.metrics['loss_d']:.2g}. Run again with a higher "
                    "loss.gamma or a lower optimiser.learning_rate, or allow more of it with health.most"
                )
            self._set_back()
            why = "collapsed"
        if why is not None:
            result.metrics[SET_BACK[why]] = self.good_step
        return result

    def _keep(self, step: int) -> None:
        """Makes the present state, if it is finite, the one to go back to.

        On the CPU: what is there for the worst case takes no memory of the GPU.
        """
        state = self.stage.tensors().items()
        tensors = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state}
        if all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            self.good_tensors, self.good_scalars, self.good_step = tensors, self.stage.scalars(), step

    def _set_back(self) -> None:
        self.stage.load(self.good_tensors, self.good_scalars)
        self.setbacks, self.signs = self.setbacks + 1, 0
        self._scale_rate()

    def _scale_rate(self) -> None:
        self.stage.scale_rate(self.settings.rate**self.setbacks)

    # -- state ---------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """The state to go back to, as "good.<name>"."""
        return add_prefix({GOOD: self.good_tensors})

    def scalars(self) -> dict[str, int]:
        """Counters, and those of the state to go back to."""
        good = {f"{GOOD}.{name}": value for name, value in self.good_scalars.items()}
        return {"signs": self.signs, "setbacks": self.setbacks, "good_step": self.good_step, **good}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, int], step: int) -> None:
        """What :meth:`tensors` and :meth:`scalars` gave, after the stage's own state of ``step`` was loaded.

        A checkpoint from before there were such states makes its own the one to go back to.
        """
        self.signs, self.setbacks = scalars.get("signs", 0), scalars.get("setbacks", 0)
        good = strip_prefix(GOOD, tensors)
        if good:
            self.good_tensors, self.good_step = good, scalars["good_step"]
            prefix = f"{GOOD}."
            self.good_scalars = {k.removeprefix(prefix): v for k, v in scalars.items() if k.startswith(prefix)}
        else:
            self._keep(step)
        self._scale_rate()
