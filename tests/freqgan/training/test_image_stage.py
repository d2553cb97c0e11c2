from __future__ import annotations

import pytest
import torch

from freqgan.model.generators import Blend
from freqgan.training.image_stage import ImageStage
from tests.support.models import TinyRun, chain_of, pictures, tiny_settings


@pytest.mark.parametrize("transform", ["dwt:haar", "dwt:db2", "dwt:bior4.4"])
def test_per_band_blend_with_equal_values_is_the_scalar_blend(transform: str) -> None:
    scalar = Blend(chain_of(tiny_settings(levels=2, transform=transform)))
    chain = chain_of(tiny_settings(levels=2, transform=transform, image_stage={"alpha": "per_band"}))
    per_band = Blend(chain)
    torch.nn.init.constant_(scalar.logits, 0.7)
    torch.nn.init.constant_(per_band.logits, 0.7)
    assert len(per_band.alphas()) == 7
    first, second = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(per_band(first, second), scalar(first, second), atol=1e-5, rtol=0)
    torch.nn.init.constant_(per_band.logits, 100)
    torch.testing.assert_close(per_band(first, second), first, atol=1e-5, rtol=0)


def test_alpha_starts_at_one_half_and_is_learned_at_its_own_rate() -> None:
    fast = TinyRun(tiny_settings(image_stage={"alpha_learning_rate": 0.05}))
    frozen = TinyRun(tiny_settings(image_stage={"alpha_learning_rate": 0.0}))
    assert fast.image.generator.blend.alphas() == {"alpha": 0.5}
    for run in (fast, frozen):
        for step in range(3):
            metrics = run.step(step)[1]["image"]
    assert abs(fast.image.generator.blend.alphas()["alpha"] - 0.5) > 0.01
    assert frozen.image.generator.blend.alphas()["alpha"] == 0.5
    assert metrics["alpha"] == 0.5


def test_the_other_generator_is_tied_to_the_chain() -> None:
    """With a tie, G_o's coarsest low band comes nearer to the chain's than without."""

    def last_ties(tie: float) -> float:
        run = TinyRun(tiny_settings(batch=8, image_stage={"tie": tie}))
        return sum([run.step(step)[1]["image"]["tie"] for step in range(30)][-10:])

    assert last_ties(30.0) < 0.8 * last_ties(0.0)


def test_what_g_o_lacks_is_no_business_of_the_chain() -> None:
    """The feedback to the bands is the same whatever G_o makes alone, where nothing of it is in the blend."""
    settings = tiny_settings(batch=8, image_stage={"solo_share": 0.5, "chain_share": 0.5})
    chain = chain_of(settings)
    found = []
    for gain in (1.0, 0.1):
        stage = ImageStage(chain)
        with torch.no_grad():
            for parameter in stage.generator.other.parameters():
                parameter.mul_(gain)
        outputs = {
            gan.name: torch.randn(8, 3, *chain.band_size(gan.level), generator=torch.Generator().manual_seed(i))
            for i, gan in enumerate(chain.plan.gans)
        }
        labels = torch.zeros(8, dtype=torch.int64)
        found.append([stage.step(step, pictures(settings), labels, outputs).feedback for step in range(2)])
    for first, second in zip(*found, strict=True):
        assert all(torch.equal(first[name], second[name]) for name in first)
