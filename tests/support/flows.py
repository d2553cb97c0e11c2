"""Small models whose experts are all flows, trained apart in one process."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from freqgan.generation.synthesiser import Synthesiser
from freqgan.model.chain import Chain
from freqgan.model.settings import ModelSettings
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.tensor_dicts import tensors_of
from freqgan.training.flow_matching import FlowMatching
from tests.support.models import TINY_SIZES, chain_of, pictures

TINY_FLOW: dict[str, Any] = {"width": 8, "coarse_width": 8, "heads": 2}


def flow_settings(**changes: Any) -> ModelSettings:
    """16x16 pictures, one level, batch 4, every expert a flow of networks 8 channels wide, no image stage."""
    flow = {"coarse_network": TINY_FLOW, "band_network": TINY_FLOW, "optimiser": {"warmup_images": 0}}
    base: dict[str, Any] = {
        "image_size": 16, "levels": 1, "batch": 4, "images": 400, "noise": {"dimensions": 16},
        "experts": {"default": "flow"}, "plan": {"strict_nesting": True},
    }  # fmt: skip
    base["image_stage"] = TINY_SIZES["image_stage"] | {"enabled": False}
    for group in ("flow", "plan", "image_stage"):
        inner = changes.pop(group, {})
        base[group] = (flow if group == "flow" else base[group]) | inner
    return ModelSettings.model_validate(TINY_SIZES | base | changes)


def flow_stages(chain: Chain, replica: ReplicaContext = SINGLE) -> list[FlowMatching]:
    """What trains each expert of a chain of flows."""
    return [FlowMatching(chain, gan, replica) for gan in chain.plan.gans]


def step_of(stage: FlowMatching, step: int, images: Tensor | None = None) -> dict[str, float]:
    """One step of a stage on pictures of that step; its metrics."""
    settings = stage.settings
    batch = pictures(settings, seed=100 + step) if images is None else images
    labels = torch.arange(len(batch)) % max(1, settings.classes)
    return stage.step(step, batch, labels, {}).metrics


def flow_model(steps: int = 3, **changes: Any) -> Synthesiser:
    """A model of flows after some steps of training."""
    chain = chain_of(flow_settings(**changes))
    stages = flow_stages(chain)
    for step in range(steps):
        for stage in stages:
            step_of(stage, step)
    return synthesiser_of(chain, stages)


def synthesiser_of(chain: Chain, stages: list[FlowMatching]) -> Synthesiser:
    """The generators of trained stages."""
    states = {stage.name: tensors_of(stage.state_dict()) for stage in stages}
    return Synthesiser(chain.settings, chain.statistics, states)
