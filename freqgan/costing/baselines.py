"""The systems that are compared, made from one model's settings and brought to equal cost.

* ``bands``: the settings as they are.
* ``literal``: band discriminators that see no condition, generators trained on generated conditions alone, and no
  feedback: one GAN per band, each for itself, whatever the kinds of the experts in the settings.
* ``joint-hf``: one network for the three high bands of every level.
* ``single``: no bands; the conventional generator alone, in the image stage, whichever companion the settings name.
* ``fusion``: the jointly trained system of a generator of whole images, one of the low band and one of all high bands.
* ``flow``: flow experts, each alone, one for the three high bands of every level, and no image stage.
* ``mixed``: a flow expert for the coarsest low band, GANs above it, and the image stage.
* ``single-flow``: one flow expert of whole images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from freqgan.costing.operator_count import training_cost
from freqgan.errors import InputError, nearest
from freqgan.model.companion_settings import ADVERSARIAL
from freqgan.model.expert_settings import DEFAULT, ExpertKind
from freqgan.model.plan import PlanSettings
from freqgan.model.settings import ModelSettings

Settings = TypeVar("Settings", bound=ModelSettings)

STEP, FLOW_STEP = 8, 4
"""Widths are multiples of this: groups of convolutions, and heads of attention, stay whole."""
GROWTH = 1.6
"""Cost grows with about this power of the widths: some convolutions are dense, others grouped."""
TRIES, TOLERANCE = 8, 0.02
NETWORKS: dict[ExpertKind, list[tuple[str, ...]]] = {
    "gan": [("coarse_generator",), ("coarse_discriminator",), ("band_generator",), ("band_discriminator",)],
    "flow": [("flow", "coarse_network"), ("flow", "band_network")],
}
"""Where the sizes of the networks of a kind of expert are in the settings."""
COMPANION_NETWORKS: dict[str, list[tuple[str, ...]]] = {
    **{kind: [("image_stage", "generator"), ("image_stage", "discriminator")] for kind in ADVERSARIAL},
    "vae": [("image_stage", "generator")],
    "diffusion": [("image_stage", "unet")],
    "flow_matching": [("image_stage", "unet")],
    "autoregressive": [("image_stage", "autoregressive")],
    "flow": [("image_stage", "glow")],
}
"""Where those of a companion alone are; an imported one is as large as it is."""


def _bands(values: dict[str, Any]) -> None:
    """Leave the settings as they are."""


def _literal(values: dict[str, Any]) -> None:
    values["experts"], values["generation"]["guidance"] = {}, {}
    values["band_discriminator"]["condition"] = False
    values["teacher_forcing"] |= {"start": 0.0, "end": 0.0}
    values["feedback"]["weight"] = 0.0


def _joint(values: dict[str, Any]) -> None:
    values["plan"]["high_gans"] = dict.fromkeys(range(1, values["levels"] + 1), 1)


def _single(values: dict[str, Any]) -> None:
    values["plan"] |= {"bands": "none"}
    values["experts"], values["generation"]["guidance"] = {}, {}
    values["image_stage"] |= {"enabled": True, "solo_share": 1.0, "chain_share": 0.0}


def _fusion(values: dict[str, Any]) -> None:
    values["system"], values["plan"], values["packets"] = "fusion", PlanSettings().model_dump(), {}
    values["experts"], values["generation"]["guidance"] = {}, {}
    values["image_stage"] |= {"enabled": True, "companion": "attention"}
    values["loss"]["kind"] = "hinge"
    if "pace" in values:
        values["pace"] = "together"


def _flow(values: dict[str, Any]) -> None:
    values["experts"], values["generation"]["guidance"] = {DEFAULT: "flow"}, {}
    values["plan"] |= {"strict_nesting": True, "bands": "all", "low_gans": {}, "condition": "all", "cycles": 1}
    _joint(values)
    values["image_stage"]["enabled"] = False


def _mixed(values: dict[str, Any]) -> None:
    values["experts"], values["generation"]["guidance"] = {f"LL{values['levels']}": "flow"}, {}
    values["plan"]["cycles"] = 1
    values["image_stage"]["enabled"] = True


def _single_flow(values: dict[str, Any]) -> None:
    _flow(values)
    values["levels"], values["plan"]["high_gans"] = 0, {}
    values["packets"], values["flow"]["crop"] = {}, {}
    if values["transform"].startswith("radial"):
        values["transform"] = "dwt:haar"  # nothing is split, and a radial transform names its levels


VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "bands": _bands,
    "literal": _literal,
    "joint-hf": _joint,
    "single": _single,
    "fusion": _fusion,
    "flow": _flow,
    "mixed": _mixed,
    "single-flow": _single_flow,
}


def variant(settings: Settings, name: str) -> Settings:
    """Return ``settings`` as system ``name``, with networks of the same widths.

    Raises:
        InputError: no system has that name.

    """
    if name not in VARIANTS:
        raise InputError(
            f"no system is called {name!r}{nearest(name, list(VARIANTS))}; there are {', '.join(VARIANTS)}"
        )
    values = settings.model_dump()
    VARIANTS[name](values)
    return type(settings).model_validate(values)


def at_cost(settings: Settings, target: float) -> tuple[Settings, float]:
    """Return ``settings`` with scaled widths, at which a training step costs about ``target``, and that cost.

    ``target`` counts multiply-accumulates per image.

    All widths grow by one factor, in steps of 8 channels (4 of flow experts). The image stage is left alone where there
    are bands: every system has the same one.

    Returns:
        The settings and their cost: the least found that is not under ``target``, so that nobody is given less.

    """
    factor, by_cost = 1.0, dict[float, Settings]()
    for _ in range(TRIES):
        scaled = _scaled(settings, factor)
        cost = sum(training_cost(scaled).values())
        by_cost.setdefault(cost, scaled)
        if target <= cost <= (1 + TOLERANCE) * target:
            break
        factor *= ((1 + TOLERANCE / 2) * target / cost) ** (1 / GROWTH)
    enough = [cost for cost in by_cost if cost >= target]
    best = min(enough) if enough else max(by_cost)
    return by_cost[best], best


def _networks(settings: ModelSettings) -> list[tuple[str, ...]]:
    """Return where the settings of the networks that grow are."""
    gans = settings.band_plan().gans
    image: list[tuple[str, ...]] = [("image_stage", "generator"), ("image_stage", "discriminator")]
    if settings.system == "fusion":
        return [*NETWORKS["gan"], *image]
    if not gans:
        return COMPANION_NETWORKS.get(settings.image_stage.companion, [])
    if len(gans) == 1 and gans[0].kind == "flow":  # no band has a network of the other sizes
        return [("flow", "coarse_network")]
    return [path for kind, paths in NETWORKS.items() if any(gan.kind == kind for gan in gans) for path in paths]


def _scaled(settings: Settings, factor: float) -> Settings:
    """Return every width times ``factor``, rounded at thresholds of its own: no two widths step at the same factor."""
    values = settings.model_dump()
    fields = [
        (path, key) for path in _networks(settings) for key in ("width", "coarse_width") if key in _at(values, path)
    ]
    for number, (path, key) in enumerate(fields):
        threshold, network = (number + 0.5) / len(fields), _at(values, path)
        step = FLOW_STEP if path[0] == "flow" or path[-1] in ("unet", "autoregressive", "glow") else STEP
        network[key] = max(step, int(network[key] * factor / step + threshold) * step)
    return type(settings).model_validate(values)


def _at(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    for key in path:
        values = values[key]
    return values
