"""Strips, as PNG and as arrays of floats: damage, islands, older models and Ray are as for images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.data.packing import pack
from cluster.data.quarantine import QUARANTINE
from cluster.data.sampler import BlockShuffle
from cluster.data.shard_index import build_index
from cluster.formats.source_format import PieceOptions
from cluster.run.checkpoints import find_checkpoint
from cluster.run.data_source import open_source
from cluster.run.settings import RunSettings
from cluster.training.warm_start import begin_from
from freqgan.errors import InputError
from tests.support.clips import moving_frames
from tests.support.free_runs import digests_together, free_settings, stage_digests, trained_apart
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import UNSPARED
from tests.support.serving import FLOWS

FRAMES, SIDE, SHARD = 4, 16, 20
CLIPS: dict[str, Any] = {"frames": FRAMES, "time_levels": 1, "noise": {"dimensions": 64}}
FLOATS: dict[str, Any] = CLIPS | {"channels": 1, "bit_depth": 32, "value_range": [-1000, 1000]}
KINDS = {"pictures": CLIPS, "floats": FLOATS}


def write_strips(folder: Path, kind: str, count: int = 60, seed: int = 0) -> Path:
    """Shards of ``count`` clips of 16 x 16 pixels in which a picture shifts: colours, or one channel of floats."""
    (folder / kind).mkdir(parents=True)
    for number in range(count):
        frames = moving_frames(FRAMES, SIDE, SIDE, scene=seed + number)
        if kind == "floats":
            frames = (frames[..., 0].astype(np.float32) - 128) * np.float32(3.7)  # type: ignore[assignment]
        np.save(folder / kind / f"{number:03d}.npy", frames)
    shards = folder / f"{kind}-shards"
    pack(str(folder / kind), str(shards), shard_samples=SHARD, options=PieceOptions(frames=FRAMES))
    return shards


@pytest.fixture(scope="module")
def strips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("strips")
    return {kind: write_strips(folder, kind) for kind in KINDS}


def damage(shards: Path, settings: RunSettings, position: int, part: str) -> str:
    """Flip a byte of the image, or of the fields, of the sample at ``position`` of the order; its name."""
    index = build_index(str(shards))
    order = BlockShuffle([len(shard.samples) for shard in index.shards], settings.seed, True, 4)
    shard_number, number = order.locate(position)
    shard = index.shards[shard_number]
    sample = shard.samples[number]
    member = sample.member("json")
    assert member is not None
    offset = sample.offset + sample.size_bytes // 2 if part == "image" else member.offset + 3
    content = bytearray(Path(shard.url).read_bytes())
    content[offset] ^= 0x41
    Path(shard.url).write_bytes(content)
    return sample.image_name


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("pictures", "image"),
        ("floats", "fields"),
        pytest.param("pictures", "fields", marks=pytest.mark.long),
        pytest.param("floats", "image", marks=pytest.mark.long),
    ],
)
def test_a_damaged_strip_is_left_out_as_if_it_had_not_been_there(
    kind: str, part: str, strips: dict[str, Path], tmp_path: Path
) -> None:
    """A run of sound shards that has its place in the quarantine ends with the same bytes."""
    shutil.copytree(strips[kind], tmp_path / "damaged")

    def settings(name: str, data: Path, steps: int) -> RunSettings:
        return tiny_run_settings(tmp_path / name, data, max_steps=steps, statistics_images=8, **KINDS[kind])

    name = damage(tmp_path / "damaged", settings("run", strips[kind], 4), 20, part)
    _, events, digest = trained(settings("run", tmp_path / "damaged", 4))
    assert [image.member for image, _ in events.left_out if image.member] == [name]
    trained(settings("sound", strips[kind], 2))
    (tmp_path / "sound" / QUARANTINE).write_bytes((tmp_path / "run" / QUARANTINE).read_bytes())
    assert trained(settings("sound", strips[kind], 4))[2] == digest
    assert trained(settings("other", strips[kind], 4))[2] != digest


@pytest.mark.parametrize(
    ("kind", "experts"),
    [
        ("pictures", "flow experts"),
        pytest.param("pictures", "GANs apart", marks=pytest.mark.long),
        pytest.param("floats", "flow experts", marks=pytest.mark.long),
    ],
)
def test_islands_of_clips_give_the_whole_model(
    kind: str, experts: str, strips: dict[str, Path], tmp_path: Path
) -> None:
    small = KINDS[kind] | {"max_steps": 2, "plan": {"high_gans": {1: 1}, "strict_nesting": True}}
    islands = free_settings(tmp_path / "islands", strips[kind], experts, **small)
    expected = digests_together(islands, tmp_path / "together")
    parts = list(islands.by_component().values())
    assert {part.only[0].partition(".")[0] for part in parts} == {"tL", "tH1"}
    for part in reversed(parts):
        trained_apart(islands, *part.only)
    assert stage_digests(islands.run) == expected


def test_a_model_of_clips_goes_on_with_new_strips(strips: dict[str, Path], tmp_path: Path) -> None:
    older = tiny_run_settings(tmp_path / "older", strips["floats"], max_steps=2, **FLOATS, **FLOWS)
    trained(older)
    more = write_strips(tmp_path, "floats", count=24, seed=100)
    newer = older.model_copy(update={"run": str(tmp_path / "newer"), "data": str(more)})
    begin_from(newer, open_source(newer), find_checkpoint(older.run))
    begun, ended = find_checkpoint(newer.run).averages(), find_checkpoint(older.run).averages()
    assert all(torch.equal(begun[stage][name], x) for stage in ended for name, x in ended[stage].items())
    result, events, digest = trained(newer)
    assert (events.first_step, result.step) == (0, 2)
    assert digest != find_checkpoint(older.run).digest()


@pytest.mark.parametrize("kind", ["pictures", pytest.param("floats", marks=pytest.mark.long)])
def test_ray_equals_inline(kind: str, strips: dict[str, Path], tmp_path: Path, ray_cluster: None) -> None:
    changes = KINDS[kind] | {"max_steps": 3, "plan": {"high_gans": {1: 1}}} | UNSPARED
    inline = trained(tiny_run_settings(tmp_path / "inline", strips[kind], **changes))[2]
    settings = tiny_run_settings(tmp_path / "ray", strips[kind], executor="ray", readers=2, **changes)
    assert trained(settings)[2] == inline


def test_damage_of_the_first_strip_does_not_hide_the_kind_of_the_others(
    strips: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(strips["pictures"], tmp_path / "data")
    first = build_index(str(tmp_path / "data")).shards[0]
    content = bytearray(Path(first.url).read_bytes())
    content[first.samples[0].offset + 40] ^= 0x41
    Path(first.url).write_bytes(content)
    settings = tiny_run_settings(tmp_path / "run", tmp_path / "data")
    with pytest.raises(InputError, match=f"{first.samples[1].image_name} in .* has 4 frames"):
        open_source(settings)


def test_indexes_keep_what_values_mean(strips: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "data"
    shutil.copytree(strips["floats"], path)
    content = json.loads((path / "index.json").read_text())
    values = {"offset": 0.0, "slope": 1.0, "unit": "mT"}
    (path / "index.json").write_text(json.dumps(content | {"values": values}))
    settings = tiny_run_settings(tmp_path / "run", path, max_steps=1, **FLOATS)
    trained(settings)
    assert find_checkpoint(settings.run).values == values
    islands = free_settings(tmp_path / "islands", path, max_steps=1, plan={"high_gans": {1: 1}}, **FLOATS)
    trained_apart(islands)
    assert find_checkpoint(islands.run).values == values
    (path / "index.json").write_text(json.dumps(content | {"values": values | {"slope": "one"}}))
    with pytest.raises(InputError, match=r"values in .*index.json has the slope 'one'"):
        open_source(settings)
