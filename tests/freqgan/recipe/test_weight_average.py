"""The weight average against its closed form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from freqgan.recipe.weight_average import average_decay, update_average


def network(value: float) -> nn.Sequential:
    made = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.fill_(value)
    return made


def test_decay_halves_over_its_halflife() -> None:
    assert average_decay(1000, 10**9, 1000.0, 0.05) == pytest.approx(0.5)
    assert average_decay(250, 10**9, 1000.0, 0.05) ** 4 == pytest.approx(0.5)


def test_decay_is_shorter_while_few_images_were_seen() -> None:
    assert average_decay(64, 1280, 1e6, 0.05) == pytest.approx(0.5)  # half-life 0.05 * 1280 = 64
    decays = [average_decay(64, seen, 1e4, 0.05) for seen in range(0, 400_000, 10_000)]
    assert decays == sorted(decays)
    assert decays[-1] == average_decay(64, 10**9, 1e4, 0.05)


def test_before_the_first_image_the_average_is_the_live_network() -> None:
    assert average_decay(64, 0, 1e4, 0.05) == 0.0
    assert average_decay(64, 100, 0.0, 0.05) == 0.0
    average, live = network(1.0), network(0.3)
    update_average(average, live, 0.0)
    for kept, fresh in zip(average.parameters(), live.parameters(), strict=True):
        assert torch.equal(kept, fresh)


def test_two_steps_of_half_a_batch_are_one_step() -> None:
    whole = average_decay(64, 10**9, 1e4, 0.05)
    assert average_decay(32, 10**9, 1e4, 0.05) ** 2 == pytest.approx(whole, rel=1e-12)


def test_average_of_a_constant_decays_geometrically() -> None:
    """From 1 towards 3: after k steps 3 - 2 decay^k."""
    average, live = network(1.0), network(3.0)
    for _ in range(5):
        update_average(average, live, 0.8)
    for parameter in average.parameters():
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 3.0 - 2.0 * 0.8**5))


def test_buffers_are_copied_and_the_live_network_is_not_written() -> None:
    average, live = network(1.0), network(3.0)
    live(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)))  # moves the running statistics
    before = copy.deepcopy(live.state_dict())
    update_average(average, live, 0.9)
    for name, buffer in average.named_buffers():
        assert torch.equal(buffer, before[name])
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.state_dict().items())
    assert not torch.equal(dict(average.named_buffers())["1.running_mean"], torch.zeros(2))


def test_the_average_takes_no_part_in_the_graph() -> None:
    average, live = network(1.0), network(3.0)
    update_average(average, live, 0.5)
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in average.parameters())


def test_networks_without_parameters_and_unequal_networks() -> None:
    update_average(nn.Identity(), nn.Identity(), 0.5)
    with pytest.raises(ValueError):
        update_average(network(1.0), nn.Linear(3, 2), 0.5)
