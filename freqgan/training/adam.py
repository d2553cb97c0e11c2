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
    """Return the learning rate of ``parameter`` over that of the settings.

    It is fan_in^-1/2 for weights (outputs, ...) and 0.1 for vectors (n,).

    Adam moves every weight by about the learning rate, so a layer's output moves by fan_in times that where
    its inputs agree. Relative to the weights' own scale all layers, and a generator and its discriminator,
    learn at one speed: the equalised learning rate of Karras et al. (2018), without touching the forward pass.
    """
    return float(parameter[0].numel() ** -0.5) if parameter.ndim > 1 else VECTOR_RATE


class ScheduledAdam:
    """Adam (Kingma and Ba 2015) with betas (beta1, beta2(images)) over the parameters of ``module``.

    The state is made at once, so that a checkpoint has the same tensors at every step.

    Args:
        module: whose parameters are updated.
        settings: the rates.
        total_images: over which the rates go from first to final value.
        rate: multiplies the settings' learning rate for every parameter.
        multipliers: learning rates relative to that of the settings by a parameter's full name, where
            :func:`relative_rate` is not wanted.
        beta1: memory of gradients; 0 for the networks of GANs.

    """

    def __init__(
        self,
        module: nn.Module,
        settings: OptimiserSettings,
        total_images: int,
        rate: float = 1.0,
        multipliers: Mapping[str, float] | None = None,
        beta1: float = 0.0,
    ) -> None:
        self.settings, self.beta1 = settings, beta1
        self.total_images = total_images
        self.scale = 1.0
        """A factor of all rates; below 1 where a stage was set back."""
        self.parameters = dict(module.named_parameters())
        self._groups: dict[float, list[str]] = {}  # names by learning rate over that of the settings
        for name, parameter in self.parameters.items():
            multiplier = (multipliers or {}).get(name, rate * relative_rate(parameter))
            self._groups.setdefault(multiplier, []).append(name)
        self._moments = {name: _Moments.zeros(parameter) for name, parameter in self.parameters.items()}
        self._updates = torch.zeros((), device=next(iter(self.parameters.values())).device)

    def gradients(self, loss: Tensor, inputs: Sequence[Tensor] = ()) -> tuple[list[Tensor], list[Tensor]]:
        """Return the gradients of ``loss``, a scalar, by the parameters and by ``inputs`` of any shape (...).

        A gradient has the shape of what it is by; it is zero where the loss does not use that.
        """
        variables = [*self.parameters.values(), *inputs]
        by_variable = torch.autograd.grad(loss, variables, allow_unused=True)
        gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(variables, by_variable, strict=True)]
        return gradients[: len(self.parameters)], gradients[len(self.parameters) :]

    @torch.no_grad()
    def update(self, gradients: Iterable[Tensor], images: int, failed: Tensor) -> None:
        """Take one step with the rates after ``images`` images; none where ``failed`` is 1.

        Args:
            gradients: one for each parameter, of its shape (...), in the order of the module's parameters.
            images: trained on before this step, on which the rates depend.
            failed: 0 or 1, a scalar of shape () on the device of the parameters, which Python does not look at.

        """
        by_name = dict(zip(self.parameters, gradients, strict=True))
        self._updates.add_(1).sub_(failed)
        learning_rate = learning_rate_at(self.settings, images, self.total_images)
        beta2 = beta2_at(self.settings, images, self.total_images)
        for multiplier, names in self._groups.items():
            parameters: list[Tensor] = [self.parameters[name] for name in names]
            averages, squares = map(list, zip(*(self._moments[name] for name in names), strict=True))
            # The operator, since the first torch.optim.Optimizer of a process loads torch's compiler: two seconds.
            torch._fused_adam_(
                parameters, [_in_layout_of(self.parameters[name], by_name[name]) for name in names],
                averages, squares, [], [self._updates] * len(names), amsgrad=False, beta1=self.beta1, beta2=beta2,
                lr=self.scale * multiplier * learning_rate, weight_decay=0.0, eps=EPSILON, maximize=False,
                found_inf=failed,
            )  # fmt: skip

    def moments(self) -> dict[str, Tensor]:
        """Return the moments as "exp_avg.<parameter>" and "exp_avg_sq.<parameter>", of the parameter's shape (...)."""
        return {f"{moment}.{name}": getattr(pair, moment) for moment in MOMENTS for name, pair in self._moments.items()}

    @property
    def updates(self) -> int:
        """How many updates were made."""
        return int(self._updates)

    @torch.no_grad()
    def load(self, moments: Mapping[str, Tensor], updates: int) -> None:
        """Replace the state by what :meth:`moments`, tensors of the parameters' shapes (...), and :attr:`updates` gave.

        Raises:
            KeyError: a moment of a parameter is missing.

        """
        self._updates.fill_(updates)
        for name, pair in self._moments.items():
            for moment in MOMENTS:
                getattr(pair, moment).copy_(moments[f"{moment}.{name}"])


class _Moments(NamedTuple):
    """Running means of one parameter's gradient and of its square, under torch's names."""

    exp_avg: Tensor
    exp_avg_sq: Tensor

    @classmethod
    def zeros(cls, parameter: Tensor) -> _Moments:
        return cls(*(torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2)))


def _in_layout_of(parameter: Tensor, gradient: Tensor) -> Tensor:
    """Return ``gradient`` with the strides of ``parameter``, both of one shape (...).

    Fused Adam walks memory and ignores strides, and a second derivative of a convolution comes back in another layout
    than its weights: the update would be scrambled without a word.
    """
    return gradient if gradient.stride() == parameter.stride() else torch.empty_like(parameter).copy_(gradient)
