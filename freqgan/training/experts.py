"""Which class trains an expert of a kind."""

from __future__ import annotations

from freqgan.model.chain import Chain
from freqgan.model.plan import Gan
from freqgan.runtime.data_parallel import SINGLE, ReplicaContext
from freqgan.runtime.graph_capture import GraphCapture
from freqgan.training.band_gan import BandGan
from freqgan.training.flow_matching import FlowMatching
from freqgan.training.stage import BandExpert


def build_expert(
    chain: Chain, gan: Gan, replica: ReplicaContext = SINGLE, capture: GraphCapture | None = None
) -> BandExpert:
    """Return ``gan`` with everything needed to train it, as it is at the very start.

    Args:
        chain: plan, transform and statistics on the device to train on.
        gan: which expert; its kind decides the class.
        replica: whose rows of every batch it is trained on.
        capture: captures the computations of a step, of kinds that can be captured.

    """
    if gan.kind == "flow":
        return FlowMatching(chain, gan, replica)
    return BandGan(chain, gan, replica, capture)
