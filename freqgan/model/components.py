"""Which stages train apart: the connected components of what stages give each other while they train.

Stages that take an output of another, or its feedback, keep step with it. A stage that waits for nobody and for whom
nobody waits is a component by itself, and may be trained at any time, anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from freqgan.errors import InputError, nearest
from freqgan.model.expert_settings import DEFAULT
from freqgan.model.needs import all_needs
from freqgan.model.plan import check_choices, choice_for
from freqgan.model.stage_names import IMAGE_STAGE

if TYPE_CHECKING:
    from freqgan.model.settings import ModelSettings

Settings = TypeVar("Settings", bound="ModelSettings")


class Component(NamedTuple):
    """Stages that train together, in the order of the chain, and how many images they see.

    Its name is that of its first stage.
    """

    stages: tuple[str, ...]
    images: int

    @property
    def name(self) -> str:
        """The name of the first of its stages."""
        return self.stages[0]


def components(settings: ModelSettings) -> tuple[Component, ...]:
    """Return the components of the whole model, whatever ``settings.only`` says, in the order of the chain.

    Raises:
        InputError: stages that train together are to see different numbers of images.

    """
    needs = all_needs(settings)
    names = {key: count for key, count in settings.stage_images.items() if key != IMAGE_STAGE}
    check_choices(settings.band_plan(), names, "stage_images")
    group_of = {name: {name} for name in needs}
    for name, own in needs.items():
        for other in (*own.outputs, *([IMAGE_STAGE] if own.feedback else [])):
            if group_of[name] is not group_of[other]:
                group_of[name] |= group_of[other]
                for member in group_of[other]:
                    group_of[member] = group_of[name]
    parts = dict.fromkeys(tuple(other for other in needs if other in group_of[name]) for name in needs)
    return tuple(Component(stages, _images(settings, stages)) for stages in parts)


def chosen_components(settings: ModelSettings) -> tuple[Component, ...]:
    """Return those that ``settings.only`` names, all of them where it names none.

    Raises:
        InputError: a name that no stage has, or a part of the stages that train together.

    """
    there = components(settings)
    if not settings.only:
        return there
    names = [name for component in there for name in component.stages]
    for name in settings.only:
        if name not in names:
            raise InputError(f"only: no stage is called {name!r}{nearest(name, names)}; there are {', '.join(names)}")
    chosen = tuple(component for component in there if set(component.stages) & set(settings.only))
    for component in chosen:
        if missing := [name for name in component.stages if name not in settings.only]:
            given = [name for name in component.stages if name in settings.only]
            raise InputError(
                f"only: {', '.join(given)} {'exchange' if len(given) > 1 else 'exchanges'} outputs or feedback with "
                f"{', '.join(missing)} in every step, and cannot train without: name all of them "
                f"(only={','.join(component.stages)}), or use experts that train apart (experts=flow, or "
                "exchange=none for GANs on real conditions)"
            )
    return chosen


def component_settings(settings: Settings, component: Component) -> Settings:
    """Return ``settings`` to train one component by: its stages alone, and schedules over its own images."""
    own = {"only": component.stages, "images": component.images, "stage_images": {}}
    return settings.model_copy(update=own)


def _images(settings: ModelSettings, stages: Sequence[str]) -> int:
    """Return the images that ``stages``, which train together, are to see."""
    gans = {gan.name: gan for gan in settings.band_plan().gans}
    chosen: dict[str, int] = {}
    for name in stages:
        given = settings.stage_images
        own = choice_for(gans[name], given, "stage_images") if name in gans else given.get(name, given.get(DEFAULT))
        chosen[name] = settings.images if own is None else own
    if len(set(chosen.values())) > 1:
        rows = ", ".join(f"{name}={count:,}" for name, count in chosen.items())
        raise InputError(
            f"stage_images: {rows} exchange outputs or feedback in every step, and see the same images: give all of "
            "them one number"
        )
    return chosen[stages[0]]
