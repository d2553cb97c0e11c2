"""Features of targets: every part is seen, what is not shown is not, and labels alone are a table as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from freqgan.networks.target_embedding import TargetEmbedding, blank_targets, hidden_targets, target_embedding
from freqgan.targets import TargetLayout

LAYOUT = TargetLayout(classes=3, embedding=5, features=4, caption=12, packed=True, caption_width=16, caption_layers=1)


def rows(*texts: str) -> torch.Tensor:
    """Targets that differ in their text alone."""
    targets = torch.zeros(len(texts), LAYOUT.width)
    targets[:, LAYOUT.columns["embedding"]] = 0.5
    targets[:, LAYOUT.columns["shown"]] = 1
    for row, text in enumerate(texts):
        codes = torch.tensor(list(text.encode()), dtype=torch.float32)
        targets[row, LAYOUT.columns["caption"]][: len(codes)] = codes
    return targets


def embedding() -> TargetEmbedding:
    torch.manual_seed(0)
    return TargetEmbedding(LAYOUT, 8, deviation=0.5)


def test_columns_follow_each_other_and_fill_a_row() -> None:
    columns = LAYOUT.columns
    assert list(columns) == ["label", "embedding", "features", "caption", "shown"]
    numbers = [number for part in columns.values() for number in range(part.start, part.stop)]
    assert numbers == list(range(LAYOUT.width))
    assert list(TargetLayout(caption=4, packed=True).columns) == ["caption", "shown"]
    assert TargetLayout(features=3, packed=True).width == 4
    assert not TargetLayout()
    assert TargetLayout(classes=2)


@pytest.mark.parametrize("part", ["label", "embedding", "features", "caption"])
def test_every_part_is_seen(part: str) -> None:
    targets = rows("a text").repeat(2, 1)
    targets[1, LAYOUT.columns[part]] += 1
    first, second = embedding()(targets)
    assert not torch.allclose(first, second, atol=1e-3)


def test_of_a_target_that_is_not_shown_nothing_is_seen() -> None:
    network, targets = embedding(), rows("one", "two", "three")
    targets[:, LAYOUT.columns["label"]] = torch.tensor([[0.0], [1.0], [2.0]])
    nn.init.normal_(network.none)
    hidden = hidden_targets(LAYOUT, targets, torch.tensor([True, False, True]))
    features = network(hidden)
    assert torch.equal(features[0], network.none)
    assert torch.equal(features[2], network.none)
    assert torch.equal(features[1], network(targets)[1])
    assert bool(targets[:, LAYOUT.columns["shown"]].all())  # a copy was changed


def test_the_order_of_words_matters_and_their_place_in_the_batch_does_not() -> None:
    network = embedding()
    together = network(rows("red on blue", "blue on red"))
    assert not torch.allclose(together[0], together[1], atol=1e-4)
    alone = network(rows("blue on red"))
    torch.testing.assert_close(alone[0], together[1], atol=1e-6, rtol=1e-5)


def test_a_text_without_bytes_is_no_accident() -> None:
    features = embedding()(rows("", "x"))
    assert bool(features.isfinite().all())


def test_features_of_discriminators_begin_at_nothing() -> None:
    network = target_embedding(LAYOUT, 8, deviation=0.0)
    assert network is not None
    assert not bool(network(rows("anything")).any())


def test_labels_alone_are_a_table() -> None:
    assert target_embedding(TargetLayout(), 8) is None
    table = target_embedding(TargetLayout(classes=3), 8, spare=1)
    assert isinstance(table, nn.Embedding)
    assert table.weight.shape == (4, 8)


def test_blank_targets_are_of_the_form_that_networks_take() -> None:
    assert blank_targets(TargetLayout(classes=3), 2).dtype == torch.int64
    blank = blank_targets(LAYOUT, 2)
    assert blank.shape == (2, LAYOUT.width)
    assert bool(embedding()(blank).isfinite().all())
