"""Which class trains an expert of a kind."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from freqgan.model.chain import Chain
from freqgan.model.plan import Gan
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.training.band_gan import BandGan
from freqgan.training.distillation import Distillation
from freqgan.training.flow_matching import FlowMatching
from freqgan.training.stage import BandExpert


def build_expert(
    chain: Chain,
    gan: Gan,
    replica: ReplicaContext = SINGLE,
    capture: GraphCapture | None = None,
    teacher: Mapping[str, Tensor] | None = None,
) -> BandExpert:
    """Return ``gan`` with everything needed to train it, as it is at the very start.

    Args:
        chain: plan, transform and statistics on the device to train on.
        gan: which expert; its kind decides the class.
        replica: whose rows of every batch it is trained on.
        capture: captures the computations of a step, of kinds that can be captured.
        teacher: the averaged weights (...) of the flow expert that a student learns of, by their names in its state;
            where not given it is one at its start, which serves to see what a step costs.

    """
    if gan.kind == "student":
        return Distillation(chain, gan, replica, teacher)
    if gan.kind == "flow":
        return FlowMatching(chain, gan, replica)
    return BandGan(chain, gan, replica, capture)
