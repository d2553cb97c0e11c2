"""Adam whose rates are functions of the images seen, with a state of plain named tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from freqgan.recipe.schedules import beta2_at, learning_rate_at
from freqgan.recipe.settings import OptimiserSettings

MOMENTS = ("exp_avg", "exp_avg_sq")
VECTOR_RATE = 0.1
EPSILON = 1e-8


def relative_rate(parameter: Tensor) -> float:
    """The learning rate of a layer over that of the settings: fan_in^-1/2 for weights, 0.1 for vectors.

    Adam moves every weight by about the learning rate, so a layer's output moves by fan_in times that where
    its inputs agree. Relative to the weights' own scale all layers, and a generator and its discriminator,
    learn at one speed: the equalised learning rate of Karras et al. (2018), without touching the forward pass.
    """
    return float(parameter[0].numel() ** -0.5) if parameter.ndim > 1 else VECTOR_RATE


class ScheduledAdam:
    """Adam (Kingma and Ba 2015) with betas (0, beta2(images)) over the parameters of ``module``.

    The state is made at once, so that a checkpoint has the same tensors at every step.

    Args:
        module: whose parameters are updated.
        settings: the rates.
        total_images: over which the rates go from first to final value.
        rate: multiplies the settings' learning rate for every parameter.
        multipliers: learning rates relative to that of the settings by a parameter's full name, where
            :func:`relative_rate` is not wanted.

    """

    def __init__(
        self,
        module: nn.Module,
        settings: OptimiserSettings,
        total_images: int,
        rate: float = 1.0,
        multipliers: Mapping[str, float] | None = None,
    ) -> None:
        self.settings = settings
        self.total_images = total_images
        self.scale = 1.0
        """Of all rates; below 1 where a stage was set back."""
        self.parameters = dict(module.named_parameters())
        self._groups: dict[float, list[str]] = {}  # names by learning rate over that of the settings
        for name, parameter in self.parameters.items():
            multiplier = (multipliers or {}).get(name, rate * relative_rate(parameter))
            self._groups.setdefault(multiplier, []).append(name)
        self._moments = {name: _Moments.of(parameter) for name, parameter in self.parameters.items()}
        self._updates = torch.zeros((), device=next(iter(self.parameters.values())).device)

    def gradients(self, loss: Tensor, inputs: Sequence[Tensor] = ()) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients of ``loss`` with respect to the parameters and to ``inputs``, zero for those it does not use."""
        wanted = [*self.parameters.values(), *inputs]
        found = torch.autograd.grad(loss, wanted, allow_unused=True)
        gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]
        return gradients[: len(self.parameters)], gradients[len(self.parameters) :]

    @torch.no_grad()
    def update(self, gradients: Iterable[Tensor], images: int, failed: Tensor) -> None:
        """One step with the rates of ``images`` seen; none where ``failed``, a scalar on the same device, is 1."""
        by_name = dict(zip(self.parameters, gradients, strict=True))
        self._updates.add_(1).sub_(failed)
        learning_rate = learning_rate_at(self.settings, images, self.total_images)
        beta2 = beta2_at(self.settings, images, self.total_images)
        for multiplier, names in self._groups.items():
            parameters: list[Tensor] = [self.parameters[name] for name in names]
            averages, squares = map(list, zip(*(self._moments[name] for name in names), strict=True))
            # The operator, since the first torch.optim.Optimizer of a process loads torch's compiler: two seconds.
            torch._fused_adam_(
                parameters, [_like(by_name[name], self.parameters[name]) for name in names],
                averages, squares, [], [self._updates] * len(names), amsgrad=False, beta1=0.0, beta2=beta2,
                lr=self.scale * multiplier * learning_rate, weight_decay=0.0, eps=EPSILON, maximize=False,
                found_inf=failed,
            )  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """The moments by name: ``exp_avg.<parameter>``, ``exp_avg_sq.<parameter>``."""
        return {f"{moment}.{name}": getattr(pair, moment) for moment in MOMENTS for name, pair in self._moments.items()}

    @property
    def updates(self) -> int:
        """How many updates were made."""
        return int(self._updates)

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], updates: int) -> None:
        """The state that :meth:`tensors` and :attr:`updates` described."""
        self._updates.fill_(updates)
        for name, pair in self._moments.items():
            for moment in MOMENTS:
                getattr(pair, moment).copy_(tensors[f"{moment}.{name}"])


class _Moments(NamedTuple):
    """Of one parameter, under torch's names."""

    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def of(cls, parameter: Tensor) -> _Moments:
        return cls(*(torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2)))


def _like(gradient: Tensor, parameter: Tensor) -> Tensor:
    """In the parameter's layout.

    Fused Adam walks memory and ignores strides, and a second derivative of a convolution comes back in another layout
    than its weights: the update would be scrambled without a word.
    """
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
