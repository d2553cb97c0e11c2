"""What a training step of every stage waits for, beside the images of the step.

A GAN waits for what the bands before it generate, and for the image stage's feedback. A flow expert is fitted to real
bands alone and waits for nobody, and so does a GAN that sees real conditions alone and is not judged in an image.
"""

from __future__ import annotations

from dataclasses import dataclass

from freqgan.model.plan import BandPlan, Gan
from freqgan.model.settings import ModelSettings
from freqgan.model.stage_names import FUSION_STAGE, IMAGE_STAGE


@dataclass(frozen=True)
class Needs:
    """What one stage needs in a step.

    Attributes:
        outputs: stages whose output of this step it takes, in the order of the chain.
        real: stages in whose place it takes the real bands of the batch, which it computes itself.
        feedback: whether it takes the image stage's gradient of an earlier step.

    """

    outputs: tuple[str, ...] = ()
    real: tuple[str, ...] = ()
    feedback: bool = False


def stage_needs(settings: ModelSettings) -> dict[str, Needs]:
    """Return the needs of every stage that is trained by its name, in the order of the chain, the image stage last."""
    only = settings.only
    return {name: needs for name, needs in all_needs(settings).items() if not only or name in only}


def all_needs(settings: ModelSettings) -> dict[str, Needs]:
    """Return the needs of every stage of the model, as :func:`stage_needs`, whatever ``settings.only`` says."""
    if settings.system == "fusion":
        return {FUSION_STAGE: Needs()}
    plan = settings.band_plan()
    exchanging = _exchanging(settings, plan)

    def split(sources: list[Gan], *, feedback: bool = False) -> Needs:
        outputs = tuple(gan.name for gan in sources if gan.name in exchanging)
        return Needs(outputs, tuple(gan.name for gan in sources if gan.name not in exchanging), feedback)

    needs: dict[str, Needs] = {}
    for gan in plan.gans:
        if gan.kind == "gan":
            sources = [*plan.sources(gan), *plan.sources(gan, ring=True)]
            needs[gan.name] = split(_in_order(plan, sources), feedback=settings.feeds_back)
        else:  # what it samples for others depends on the samples before; its training does not
            needs[gan.name] = split(plan.sources(gan)) if gan.name in exchanging else Needs()
    if settings.image_stage.enabled:
        needs[IMAGE_STAGE] = split(list(plan.gans))
    return needs


def stages_with_output(settings: ModelSettings) -> set[str]:
    """Return the stages whose output of a step another stage takes."""
    return {name for needs in stage_needs(settings).values() for name in needs.outputs}


def feedback_receivers(settings: ModelSettings) -> list[str]:
    """Return the stages that take the image stage's gradients, in the order of the chain."""
    return [name for name, needs in stage_needs(settings).items() if needs.feedback]


def _exchanging(settings: ModelSettings, plan: BandPlan) -> set[str]:
    """Return the stages whose output of a step another stage takes."""
    judged = settings.image_stage.enabled
    forced = settings.teacher_forcing.start == settings.teacher_forcing.end == 1
    waits = {gan.name for gan in plan.gans if gan.kind == "gan" and (judged or not forced)}
    taken: set[str] = {gan.name for gan in plan.gans} if judged else set()
    for gan in plan.gans:
        if gan.name in waits:
            taken |= {source.name for source in [*plan.sources(gan), *plan.sources(gan, ring=True)]}
    if settings.flow.outputs == "real":
        return {gan.name for gan in plan.gans if gan.kind == "gan" and gan.name in taken}
    for gan in reversed(plan.gans):  # a sample of a flow expert is made of those before it
        if gan.name in taken and gan.kind == "flow":
            taken |= {source.name for source in plan.sources(gan)}
    return taken


def _in_order(plan: BandPlan, sources: list[Gan]) -> list[Gan]:
    return [gan for gan in plan.gans if gan in sources]
