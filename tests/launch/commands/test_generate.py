"""``freqgan generate``: targets that are asked for, ways between images, mixed images, draws that are saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence

from cluster.data.shard_index import index_shards
from tests.support.commands import refused, run_command
from tests.support.mixtures import FLOWS
from tests.support.runs import tiny_run_settings, trained
from tests.support.shards import described_members, write_tar

Capsys = pytest.CaptureFixture[str]
CONDITIONING: dict[str, Any] = {"kinds": "class,embedding,caption", "embedding_length": 5, "caption_bytes": 12}
FAST: dict[str, Any] = {"learning_rate": 0.05}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("described")
    write_tar(folder / "0.tar", described_members(0, 24))
    index_shards(str(folder))
    return folder


def run_of(folder: Path, data: Path, **changes: Any) -> Path:
    settings = tiny_run_settings(folder, data, classes=2, conditioning=CONDITIONING, max_steps=5, **changes)
    trained(settings)
    return folder


@pytest.fixture(scope="module")
def gans(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return run_of(tmp_path_factory.mktemp("gans") / "run", data, optimiser=FAST)


@pytest.fixture(scope="module")
def flows(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    return run_of(
        tmp_path_factory.mktemp("flows") / "run",
        data,
        **(
            FLOWS
            | {"flow": FLOWS["flow"] | {"optimiser": FAST | {"warmup_images": 0}}, "generation": {"evaluations": 2}}
        ),
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "run"
    trained(tiny_run_settings(folder, data, plan={"bands": ["LL1", "HL1"]}, max_steps=1))
    return folder


def pictures(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("0*.png"))]


def difference(first: Path, second: Path) -> int:
    """The largest, in levels of brightness: convolutions round differently by batch."""
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (first, second))
    return int(np.abs(a - b).max())


def generated(capsys: Capsys, run: Path, out: Path, *options: object) -> list[bytes]:
    outcome = run_command(capsys, "generate", run, "--out", out, *options)
    assert outcome.code == 0, outcome.err
    return pictures(out)


# -- targets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gans", "flows"])
def test_every_part_of_a_target_can_be_asked_for(
    kind: str, capsys: Capsys, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    np.save(tmp_path / "vector.npy", np.full(5, 40.0))
    asked: dict[str, tuple[object, ...]] = {
        "open": (),
        "class": ("--class", 1),
        "vector": ("--vector", tmp_path / "vector.npy"),
        "text": ("--prompt", "some other"),
        "far": ("--prompt", "some other", "--label-guidance", 3),
        "tame": ("--truncation", 0.5),
    }
    made = {name: generated(capsys, run, tmp_path / name, "--count", 2, *options) for name, options in asked.items()}
    assert len({tuple(images) for images in made.values()}) == len(asked)
    again = generated(capsys, run, tmp_path / "again", "--count", 1, *asked["far"])
    assert again == made["far"][:1]


def test_a_vector_for_each_image(capsys: Capsys, gans: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(3, 2, (3, 5))
    np.save(tmp_path / "three.npy", vectors)
    np.save(tmp_path / "last.npy", vectors[2])
    three = generated(capsys, gans, tmp_path / "three", "--count", 3, "--vector", tmp_path / "three.npy")
    last = generated(capsys, gans, tmp_path / "last", "--count", 3, "--vector", tmp_path / "last.npy")
    assert three[2] == last[2]
    assert three[0] != last[0]
    few = run_command(
        capsys, "generate", gans, "--out", tmp_path / "few", "--count", 4, "--vector", tmp_path / "three.npy"
    )
    assert "holds 3 vectors, and 4 images or more are wanted" in refused(few)


def test_what_cannot_be_asked_for(capsys: Capsys, gans: Path, plain: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "long.npy", np.zeros(6))
    np.save(tmp_path / "nan.npy", np.full(5, np.nan))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    (tmp_path / "text.npy").write_text("no array")
    for run, options, message in (
        (gans, ("--vector", tmp_path / "long.npy"), "6 numbers were given, and the model takes 5"),
        (gans, ("--vector", tmp_path / "nan.npy"), "not finite"),
        (gans, ("--vector", tmp_path / "objects.npy"), "is no .npy file of numbers"),
        (gans, ("--vector", tmp_path / "cube.npy"), "holds an array of shape (2, 2, 2)"),
        (gans, ("--vector", tmp_path / "text.npy"), "is no .npy file of numbers"),
        (gans, ("--vector", tmp_path / "none.npy"), "none.npy"),
        (gans, ("--class", 2), "has no such class"),
        (plain, ("--prompt", "a text"), "--prompt: the model was trained without conditioning=caption (it has none)"),
        (plain, ("--label-guidance", 2), "--label-guidance"),
        (gans, ("--truncation", -1), "--truncation"),
    ):
        outcome = run_command(capsys, "generate", run, "--out", tmp_path / "out", "--count", 1, *options)
        assert message in refused(outcome), options
    assert not pictures(tmp_path / "out")


# -- draws that are saved --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gans", "flows"])
def test_saved_draws_give_the_same_images(
    kind: str, capsys: Capsys, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    options = ("--count", 66, "--seed", 4, "--class", 1, "--truncation", 0.8, "--save-vectors")
    images = generated(capsys, run, tmp_path / "images", *options)
    again = generated(capsys, run, tmp_path / "again", "--vectors", tmp_path / "images" / "draws.safetensors")
    assert len(images) == len(again) == 66
    names = [f"{number:05d}.png" for number in range(66)]
    assert max(difference(tmp_path / "images" / name, tmp_path / "again" / name) for name in names) <= 1
    assert sum(a == b for a, b in zip(images, again, strict=True)) > 50


# -- ways between images ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gans", "flows"])
def test_a_way_between_two_images(kind: str, capsys: Capsys, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run, out = request.getfixturevalue(kind), tmp_path / "way"
    frames = generated(capsys, run, out, "--interpolate", 3, 7, "--frames", 5)
    assert len(frames) == len(set(frames)) == 5
    ends = [generated(capsys, run, tmp_path / str(seed), "--count", 1, "--seed", seed)[0] for seed in (3, 7)]
    for number, end in ((0, ends[0]), (4, ends[1])):
        (tmp_path / "end.png").write_bytes(end)
        assert difference(out / f"{number:05d}.png", tmp_path / "end.png") <= 1
    assert Image.open(out / "strip.png").size == (5 * 64, 64)
    for name in ("interpolation.gif", "interpolation.webp"):
        animation = Image.open(out / name)
        assert animation.size == (128, 128)
        assert len(list(ImageSequence.Iterator(animation))) == 8  # there and back
    lossless = Image.open(out / "interpolation.webp")
    first = np.asarray(lossless.convert("RGB"))[::8, ::8]
    assert (first == np.asarray(Image.open(out / "00000.png"))).all()


# -- mixed images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gans", "flows"])
def test_the_picture_of_one_with_the_detail_of_another(
    kind: str, capsys: Capsys, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    run = request.getfixturevalue(kind)
    options = ("--mix", 3, 7, "--at", 1, "--count", 2)
    by_noise = generated(capsys, run, tmp_path / "noise", *options)
    by_coefficients = generated(capsys, run, tmp_path / "coefficients", *options, "--mix-by", "coefficients")
    assert len(by_noise) == len(by_coefficients) == 2
    assert by_noise != by_coefficients
    assert Image.open(tmp_path / "noise" / "side_by_side.png").width == 3 * 128 + 2 * 2
    same = generated(capsys, run, tmp_path / "same", "--mix", 3, 3, "--at", 1)
    (one,) = generated(capsys, run, tmp_path / "one", "--count", 1, "--seed", 3)
    assert len(same) == 1
    (tmp_path / "one.png").write_bytes(one)
    assert difference(tmp_path / "one.png", tmp_path / "same" / "00000.png") <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mix", 1, 2, "--at", 3), "--at 3: the picture up to LL of that level"),
        (("--mix", 1, 2, "--mix-by", "nose"), "no way is called so (did you mean noise"),
        (("--mix", 1, 2, "--count", 65), "at most 64 are mixed at once"),
        (("--mix", 1, 2, "--seed", 3), "--mix and --seed"),
        (("--interpolate", 1, 2, "--count", 3), "--interpolate and --count"),
        (("--interpolate", 1, 2, "--part", "chain"), "--interpolate and --part"),
        (("--interpolate", 1, 2, "--mix", 1, 2), "three ways to choose the noise"),
        (("--interpolate", 1, 2, "--frames", 1), "--frames"),
        (("--count", 1, "--frames", 9), "--frames 9 without --interpolate"),
        (("--count", 1, "--mix-by", "coefficients"), "without --mix"),
        (("--count", 1, "--prompt", " "), "--prompt is empty"),
        ((), "how many images? Give --count"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[object, ...], message: str, capsys: Capsys, gans: Path, tmp_path: Path
) -> None:
    assert message in refused(run_command(capsys, "generate", gans, "--out", tmp_path, *options))
