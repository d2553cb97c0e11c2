from __future__ import annotations

import torch

from freqgan.training.sample_pool import SamplePool
from tests.support.companions import companion_of, companion_settings

DEVICE = torch.device("cpu")


def test_a_pool_is_of_the_weights_as_they_were_when_it_began() -> None:
    settings = companion_settings("flow_matching")
    average = companion_of("flow_matching").requires_grad_(False)
    pool = SamplePool(average, settings, DEVICE)
    pool.renew(0, average)
    first = pool.take(0, 4, None)
    for parameter in average.parameters():
        parameter.add_(0.1)
    pool.renew(1, average)
    assert torch.equal(pool.take(0, 4, None), first)
    resumed = SamplePool(average, settings, DEVICE)
    resumed.load_state_dict(pool.state_dict())
    assert torch.equal(resumed.take(0, 4, None), first)
    pool.renew(2, average)
    assert pool.number == 1
    assert not torch.equal(pool.take(0, 4, None), first)


def test_samples_are_of_the_class_that_is_wanted() -> None:
    settings = companion_settings("flow_matching", classes=3)
    average = companion_of("flow_matching", classes=3).requires_grad_(False)
    pool = SamplePool(average, settings, DEVICE)
    labels = torch.tensor([0, 1, 2, 2, 1, 0] * 30)
    whole = pool._sampled()
    taken = pool.take(5, len(labels), labels)
    rows = [int((whole == image).flatten(1).all(1).nonzero()[0]) for image in taken]
    assert [row % 3 for row in rows] == labels.tolist()
    assert set(rows) == set(range(8))
