"""A model that is shown images of another run's model: it follows them, and they are found, checked and told of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cluster.data.shard_index import index_shards
from cluster.imaging.pictures import encode_png
from cluster.run.base_record import BaseRecord
from cluster.run.checkpoints import find_checkpoint
from cluster.run.feature_networks import features_of
from cluster.run.settings import RunSettings
from cluster.run.trained_model import BaseFeatures, check_base, open_model, synthesiser_of
from cluster.storage.folder import open_folder
from freqgan.errors import InputError
from freqgan.generation.synthesiser import BLOCK
from freqgan.generation.targets import TargetParts, targets_for
from freqgan.metrics.pooled_features import resized
from freqgan.pixels import to_pixels
from launch.run_folder.samples import SampleGrids
from tests.support.commands import refused, run_command
from tests.support.free_runs import together, trained_apart
from tests.support.mixtures import FLOWS
from tests.support.models import FUSION
from tests.support.runs import Events, tiny_run_settings, trained, trained_with
from tests.support.shards import upload, write_tar

Capsys = pytest.CaptureFixture[str]
VELOCITY = {"width": 16, "coarse_width": 32, "heads": 1}
LEARNS: dict[str, Any] = {
    "flow": {
        "coarse_network": VELOCITY, "band_network": VELOCITY,
        "optimiser": {"learning_rate": 0.01, "warmup_images": 0},
    },
    "average": {"ramp": 0.02},
    "generation": {"evaluations": 8},
    "experts": {"default": "flow"},
    "image_stage": {"enabled": False},
    "augmentation": {"flip": False},
    "batch": 32,
    "checkpoint_every": 10_000,
}  # fmt: skip
BASE: dict[str, Any] = {**LEARNS, "image_size": 4, "levels": 0}
SECOND: dict[str, Any] = {**LEARNS, "image_size": 8, "plan": FLOWS["plan"]}
BASE_STEPS, STEPS = 80, 200
LEAST_FARTHER = 0.9
"""Share of other base images that are farther from an image than its own; chance has 0.5."""
SYSTEMS: dict[str, dict[str, Any]] = {
    "bands": {"plan": {"bands": ["LL1", "HL1"]}},
    "flows": FLOWS,
    "single": {"plan": {"bands": "none"}},
    "fusion": FUSION,
}


class Cascade(NamedTuple):
    """Shards, a run of 4x4 images, and a run of 8x8 images that is shown those of the first."""

    data: Path
    base: Path
    second: Path


def conditioning(base: Path | str, **changes: Any) -> dict[str, Any]:
    return {"kinds": "features", "network": "pixels", "features_length": 6, "run": str(base)} | changes


def settings_of(run: Path | str, data: Path, base: Path | str, steps: int, **changes: Any) -> RunSettings:
    values: dict[str, Any] = {**SECOND, "conditioning": conditioning(base)} | changes
    batch: int = values["batch"]
    return tiny_run_settings(run, data, **{"max_steps": steps, "images": batch * steps} | values)


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    folder, rng = tmp_path_factory.mktemp("cascade"), np.random.default_rng(0)
    members: list[tuple[str, bytes]] = []
    for number in range(192):
        halves = rng.uniform(30, 225, (1, 2, 3)).repeat(8, 0).repeat(4, 1)
        pixels = (halves + rng.normal(0, 8, halves.shape)).clip(0, 255).astype(np.uint8)
        members += [(f"{number:03d}.png", encode_png(Image.fromarray(pixels)))]
        members += [(f"{number:03d}.cls", str(number % 2).encode())]
    write_tar(folder / "data" / "0.tar", members)
    index_shards(str(folder / "data"))
    made = Cascade(folder / "data", folder / "base", folder / "second")
    trained(tiny_run_settings(made.base, made.data, **BASE, max_steps=BASE_STEPS, images=32 * BASE_STEPS))
    trained(settings_of(made.second, made.data, made.base, STEPS))
    return made


@pytest.fixture
def moved(cascade: Cascade, tmp_path: Path) -> Iterator[Path]:
    """Where the base has been moved to."""
    shutil.move(cascade.base, away := tmp_path / "elsewhere")
    yield away
    shutil.move(away, cascade.base)


def images_of(run: Path | str, count: int = 8, first: int = 0) -> Tensor:
    return open_model(str(run))[1].sample(0, count, first).images


def test_images_follow_those_of_the_base(cascade: Cascade) -> None:
    base, second = images_of(cascade.base, BLOCK).clamp(-1, 1), images_of(cascade.second, BLOCK)
    distances = torch.cdist(resized(second, 4, 4).flatten(1), base.flatten(1))
    own = distances.diagonal()
    farther = float((distances > own[:, None]).sum() / (BLOCK * (BLOCK - 1)))
    others = float((distances.sum() - own.sum()) / (BLOCK * (BLOCK - 1)))
    text = f"{farther:.3f} of other base images are farther; own at {float(own.mean()):.3f}, others at {others:.3f}"
    assert farther > LEAST_FARTHER, text
    assert float(own.mean()) < 0.75 * others, text


def test_features_are_those_of_the_base_s_images_and_noise_is_not_the_base_s(cascade: Cascade) -> None:
    checkpoint, model = open_model(str(cascade.second))
    draws = model.block_draws(5, 1)
    _, base = open_model(str(cascade.base))
    images = to_pixels(base.sample(5, BLOCK, BLOCK).images)
    enlarged = [Image.fromarray(x.permute(1, 2, 0).numpy()).resize((8, 8), Image.Resampling.LANCZOS) for x in images]
    pixels = torch.stack([torch.from_numpy(np.array(x)) for x in enlarged]).permute(0, 3, 1, 2)
    expected = features_of(pixels, checkpoint.settings, checkpoint.statistics().feature_map)
    assert draws.targets is not None
    assert torch.equal(draws.targets[:, model.settings.target_layout.columns["features"]], expected)
    assert expected.std() > 0.1
    assert not torch.equal(draws.noises[0], base.block_draws(5, 1).noises[0])


def test_an_image_is_the_same_alone_and_among_others(cascade: Cascade) -> None:
    _, model = open_model(str(cascade.second))
    many = model.sample(3, 70).images
    assert torch.equal(open_model(str(cascade.second))[1].sample(3, 3, 63).images, many[63:66])
    asked = targets_for(model, 3, 5, TargetParts(), 62)
    columns = model.settings.target_layout.columns["features"]
    both = [model.block_draws(3, block).targets for block in (0, 1)]
    assert asked is not None
    expected = torch.cat([targets[:, columns] for targets in both if targets is not None])[62:67]
    assert torch.equal(asked[:, columns], expected)


def test_an_example_that_is_asked_for_needs_no_base(cascade: Cascade, moved: Path, tmp_path: Path) -> None:
    _, model = open_model(str(cascade.second))
    asked = targets_for(model, 0, 2, TargetParts(features=torch.zeros(2, 6)))
    assert model.sample(0, 2, targets=asked).images.isfinite().all()
    with pytest.raises(InputError, match=r"conditioning\.run: .*base is not there: put it back.*--like"):
        model.sample(0, 2)


def test_a_base_that_was_moved_can_be_named(cascade: Cascade, moved: Path, tmp_path: Path, capsys: Capsys) -> None:
    out = tmp_path / "out"
    message = refused(run_command(capsys, "generate", cascade.second, "--count", 2, "--out", out))
    assert str(cascade.base) in message
    assert "--conditioning-run" in message
    there = run_command(capsys, "generate", cascade.second, "--count", 2, "--out", out, "--conditioning-run", moved)
    assert (there.code, there.err) == (0, "")
    after = run_command(
        capsys, "generate", cascade.second, "--count", 2, "--out", tmp_path / "like", "--like", out / "00000.png"
    )
    assert (after.code, after.err) == (0, "")
    both = ("--like", out / "00000.png", "--conditioning-run", moved)
    assert "leave one of them out" in refused(
        run_command(capsys, "generate", cascade.second, "--count", 1, "--out", out, *both)
    )
    assert "without conditioning.run" in refused(
        run_command(capsys, "generate", moved, "--count", 1, "--out", out, "--conditioning-run", moved)
    )


def test_a_base_that_goes_away_costs_a_training_grids_alone(cascade: Cascade, moved: Path, tmp_path: Path) -> None:
    notes, folder = list[str](), open_folder(str(tmp_path / "grids"))
    grids = SampleGrids(folder, 2, notes.append)
    grids.add(find_checkpoint(str(cascade.second)))
    grids.close()
    (note,) = notes
    assert note.startswith(f"the grid of step {STEPS} was not drawn: conditioning.run: {cascade.base} is not there")
    assert folder.list() == []


def test_a_base_in_a_bucket_gives_the_same_images(cascade: Cascade, s3_server: str) -> None:
    url = upload(cascade.base)
    _, model = open_model(str(cascade.second), base=url)
    assert torch.equal(model.sample(0, 8).images, images_of(cascade.second))
    record = check_base(settings_of("unused", cascade.data, url, 1))
    assert record is not None
    stored = BaseRecord.in_manifest(find_checkpoint(str(cascade.second)).manifest)
    assert stored is not None
    assert (record.run, record.step, record.digest) == (url, stored.step, stored.digest)


def test_a_base_that_has_changed_is_told_in_one_line(cascade: Cascade, tmp_path: Path) -> None:
    shutil.copytree(cascade.base, base := tmp_path / "base")
    settings = settings_of(tmp_path / "second", cascade.data, base, 2)
    trained(settings.model_copy(update={"max_steps": 1}))
    stored = json.loads(find_checkpoint(settings.run).folder.read("manifest.json"))["conditioning_run"]
    assert stored.keys() == {"run", "step", "digest"}
    assert (stored["run"], stored["step"]) == (str(base), BASE_STEPS)
    notes: list[str] = []
    open_model(settings.run, note=notes.append)[1].sample(0, 1)
    assert notes == []
    shutil.rmtree(base)
    trained(tiny_run_settings(base, cascade.data, **BASE, max_steps=1, images=32))
    model = open_model(settings.run, note=notes.append)[1]
    model.sample(0, 1)
    model.sample(1, 1)
    (note,) = notes
    assert str(base) in note
    assert "is not the one" in note
    events = Events()
    trained_with(settings, events)
    assert [text for text in events.notes if "is not the one" in text] == notes
    assert BaseRecord.in_manifest(find_checkpoint(settings.run).manifest) == BaseRecord(**stored)


def test_a_stop_and_another_place_of_the_base_change_no_bytes(cascade: Cascade, tmp_path: Path) -> None:
    whole = trained(settings_of(tmp_path / "whole", cascade.data, cascade.base, 4))[2]
    settings = settings_of(tmp_path / "run", cascade.data, cascade.base, 4)
    trained(settings.model_copy(update={"max_steps": 2}))
    shutil.copytree(cascade.base, copy := tmp_path / "copy")
    elsewhere = settings.model_copy(
        update={"conditioning": settings.conditioning.model_copy(update={"run": str(copy)})}
    )
    _, events, digest = trained(elsewhere)
    assert (events.first_step, digest) == (2, whole)
    record = BaseRecord.in_manifest(find_checkpoint(settings.run).manifest)
    assert record is not None
    assert record.run == str(copy)
    without = settings_of(tmp_path / "alone", cascade.data, "", 4)
    assert trained(without)[2] == whole


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_is_shown_them(system: str, cascade: Cascade, tmp_path: Path) -> None:
    changes = {**SYSTEMS[system], "image_size": 8, "batch": 8, "augmentation": {"flip": False}}
    shown = tiny_run_settings(
        tmp_path / "run", cascade.data, **changes, conditioning=conditioning(cascade.base), max_steps=1
    )
    trained(shown)
    checkpoint, model = open_model(shown.run)
    targets, columns = model.block_draws(0, 0).targets, model.settings.target_layout.columns["features"]
    expected = open_model(str(cascade.second))[1].block_draws(0, 0).targets
    assert targets is not None
    assert expected is not None
    assert torch.equal(targets[:, columns], expected[:, columns])
    assert model.sample(0, 2).images.isfinite().all()
    assert synthesiser_of(checkpoint).feature_source is not None


def test_a_class_that_both_know_is_asked_of_the_base_too(cascade: Cascade, tmp_path: Path) -> None:
    for name, classes in (("labelled", 2), ("other", 0)):
        base = {**BASE, "classes": classes, "conditioning": {"kinds": "class" if classes else ()}}
        trained(tiny_run_settings(tmp_path / name, cascade.data, **base, max_steps=4, images=128))
        settings = settings_of(
            tmp_path / f"{name}-second", cascade.data, tmp_path / name, 1, classes=2,
            conditioning=conditioning(tmp_path / name, kinds="class,features"),
        )  # fmt: skip
        trained(settings)
        model = open_model(settings.run)[1]
        asked = [targets_for(model, 0, 8, TargetParts(labels=torch.full((8,), label))) for label in (0, 1)]
        assert asked[0] is not None
        assert asked[1] is not None
        columns = model.settings.target_layout.columns["features"]
        assert torch.equal(asked[0][:, columns], asked[1][:, columns]) == (not classes)
        if classes:
            labels = TargetParts(labels=torch.ones(BLOCK, dtype=torch.int64))
            base_model = open_model(str(tmp_path / name))[1]
            draws = base_model.block_draws(0, 0, targets_for(base_model, 0, BLOCK, labels))
            source = model.feature_source
            assert isinstance(source, BaseFeatures)
            assert torch.equal(source.fitted(base_model.draw(draws).images), source.images(0, 0, (1,) * BLOCK))


def test_stages_at_their_own_pace_are_shown_them(cascade: Cascade, tmp_path: Path) -> None:
    shown = settings_of(tmp_path / "apart", cascade.data, cascade.base, 2, pace="free")
    trained_apart(shown)
    joint = together(shown, tmp_path / "joint")
    trained(joint)
    one, other = find_checkpoint(shown.run), find_checkpoint(joint.run)
    assert one.stage_digests() == other.stage_digests()
    assert BaseRecord.in_manifest(one.manifest) == BaseRecord.in_manifest(other.manifest) is not None
    assert torch.equal(images_of(shown.run), images_of(joint.run))
    missing = shown.conditioning.model_copy(update={"run": str(tmp_path / "none")})
    with pytest.raises(InputError, match=r"conditioning\.run: .*none is not there: train it first"):
        trained_apart(shown.model_copy(update={"conditioning": missing}))


# -- what cannot be --------------------------------------------------------------------------------


def test_a_run_is_not_shown_its_own_images(cascade: Cascade, tmp_path: Path) -> None:
    own = settings_of(cascade.second, cascade.data, f"{cascade.second}/", STEPS)
    with pytest.raises(InputError, match=r"conditioning\.run: a model would be shown its own images"):
        trained(own)
    circle = settings_of(cascade.base, cascade.data, cascade.second, 1)
    with pytest.raises(InputError, match=r"its own images by .*base \(.*base -> .*second -> .*base\)"):
        check_base(circle)
    _, model = open_model(str(cascade.second), base=str(cascade.second))
    with pytest.raises(InputError, match="its own images"):
        model.sample(0, 1)


def test_three_stages_follow_each_other(cascade: Cascade, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "third", cascade.data, cascade.second, 1)
    trained(settings)
    model = open_model(settings.run)[1]
    targets = model.block_draws(0, 0).targets
    checkpoint = find_checkpoint(settings.run)
    pixels = to_pixels(images_of(cascade.second, BLOCK))
    expected = features_of(pixels, checkpoint.settings, checkpoint.statistics().feature_map)
    assert targets is not None
    assert torch.equal(targets[:, model.settings.target_layout.columns["features"]], expected)


def test_what_a_base_cannot_be_is_told_before_training(cascade: Cascade, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    grey = tmp_path / "grey"
    trained(tiny_run_settings(grey, cascade.data, **BASE, channels=1, max_steps=1, images=32))
    for base, expected in (
        (tmp_path / "none", "none is not there: train it first"),
        (tmp_path / "empty", "empty holds no checkpoint: train it first"),
        (grey, "grey have channels=1, and this model channels=3; name a run"),
    ):
        with pytest.raises(InputError, match=rf"conditioning\.run: .*{expected}"):
            trained(settings_of(tmp_path / "run", cascade.data, base, 1))
    assert not (tmp_path / "run" / "checkpoints" / "LATEST").exists()
