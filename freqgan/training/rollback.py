"""Roll back a stage that diverges or collapses: it alone returns to a good state, with a lower learning rate.

The stage decides by its own numbers, so every executor, and every replay, decides the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from torch import Tensor

from freqgan.errors import DivergedError
from freqgan.recipe.health import shows_collapse
from freqgan.recipe.settings import HealthSettings
from freqgan.tensor_dicts import Metrics, State, Stateful, add_prefix, strip_prefix, tensors_of

GOOD = "good"
SET_BACK: dict[Literal["diverged", "collapsed"], str] = {
    "diverged": "set_back_diverged_to",
    "collapsed": "set_back_collapsed_to",
}
"""Metrics of a step in which a stage was rolled back ("set back" in stored names): the step of the state it has now."""


class RollbackStage(Stateful, Protocol):
    """A stage: its state can be saved and restored, and its learning rates lowered."""

    def scale_rate(self, scale: float) -> None:
        """Multiply the learning rates of the settings by ``scale`` from now on."""


class HasMetrics(Protocol):
    """The result of a step."""

    @property
    def metrics(self) -> Metrics:
        """Plain numbers, ``loss_d`` and ``sample_deviation`` among them."""


Result = TypeVar("Result", bound=HasMetrics)


class DivergenceGuard:
    """Runs the steps of ``stage`` and rolls it back when they go wrong.

    Args:
        stage: its present state is the first good one.
        settings: when it is rolled back, how often, and what becomes of its rate.

    """

    def __init__(self, stage: RollbackStage, settings: HealthSettings) -> None:
        self.stage, self.settings = stage, settings
        self.signs = self.setbacks = self.good_step = 0
        self.good_state: State = {}
        self._save_if_finite(0)

    def run(self, step: int, act: Callable[[], Result]) -> Result:
        """Return the result of ``act``, the stage's step number ``step``.

        Where it diverges the stage is rolled back and the step is run again; where it has collapsed the result stands,
        the stage is rolled back, and its next step begins there.

        Raises:
            DivergedError: the stage was rolled back ``most`` times before.

        """
        if step % self.settings.every == 0 and not self.signs:
            self._save_if_finite(step)
        why: Literal["diverged", "collapsed"] | None = None
        while True:
            try:
                result = act()
                break
            except DivergedError:
                if self.setbacks >= self.settings.most:
                    raise
                self._roll_back()
                why = "diverged"
        self.signs = self.signs + 1 if shows_collapse(result.metrics, self.settings) else 0
        if self.signs >= self.settings.patience:
            if self.setbacks >= self.settings.most:
                raise DivergedError(
                    f"at step {step} the stage has collapsed once more after being set back {self.setbacks} times: "
                    f"the loss of its discriminator is {result.metrics['loss_d']:.2g}. Run again with a higher "
                    "loss.gamma or a lower optimiser.learning_rate, or allow more of it with health.most"
                )
            self._roll_back()
            why = "collapsed"
        if why is not None:
            result.metrics[SET_BACK[why]] = self.good_step
        return result

    def _save_if_finite(self, step: int) -> None:
        """Make the present state, if it is finite, the one to go back to.

        Its tensors are copied to the CPU: what is there for the worst case takes no memory of the GPU.
        """
        state: State = {
            name: value.detach().to("cpu", copy=True).contiguous() if isinstance(value, Tensor) else value
            for name, value in self.stage.state_dict().items()
        }
        if all(bool(tensor.isfinite().all()) for tensor in tensors_of(state).values()):
            self.good_state, self.good_step = state, step

    def _roll_back(self) -> None:
        self.stage.load_state_dict(self.good_state)
        self.setbacks, self.signs = self.setbacks + 1, 0
        self._scale_rate()

    def _scale_rate(self) -> None:
        self.stage.scale_rate(self.settings.rate**self.setbacks)

    def state_dict(self) -> State:
        """Return the state to go back to, as "good.<name>", and the guard's counters."""
        counters: State = {"signs": self.signs, "setbacks": self.setbacks, "good_step": self.good_step}
        return counters | add_prefix(GOOD, self.good_state)

    def load_state_dict(self, state: State, step: int) -> None:
        """Replace the state by what :meth:`state_dict` returned, after the stage's own state of ``step`` was loaded.

        A checkpoint from before there were such states makes its own the one to go back to.
        """
        self.signs, self.setbacks = int(state.get("signs", 0)), int(state.get("setbacks", 0))
        good_state = strip_prefix(GOOD, state)
        if good_state:
            self.good_state, self.good_step = good_state, int(state["good_step"])
        else:
            self._save_if_finite(step)
        self._scale_rate()
