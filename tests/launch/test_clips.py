"""Clips: packed as strips, trained as bands over time, resumed, generated, measured, edited and shown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.data.clip_files import read_clip
from cluster.data.settings import ImagePolicy
from cluster.formats.animations import encode_animation
from cluster.run.trained_model import open_model
from freqgan.errors import InputError
from tests.support.clip_runs import CLIPS, FRAMES, SIDE, write_small_clips
from tests.support.commands import refused, run_command
from tests.support.runs import tiny_run_settings, trained, whole_and_resumed
from tests.support.serving import FLOWS

Capsys = pytest.CaptureFixture[str]
FUSION: dict[str, Any] = {"system": "fusion", "loss": {"kind": "hinge"}}
ALONE: dict[str, Any] = {"plan": {"bands": "none"}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 130 clips of four frames in which an edge moves by up to two pixels a frame, over a ramp."""
    folder = tmp_path_factory.mktemp("clips")
    write_small_clips(folder, count=130)
    return folder


@pytest.fixture(scope="module")
def runs(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of GANs and one of flow experts."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("gan", {}), ("flow", FLOWS)):
        trained(tiny_run_settings(folder / name, clips / "clips", max_steps=2, **CLIPS, **changes))
    return {name: folder / name for name in ("gan", "flow")}


@pytest.mark.parametrize(
    ("transform", "changes"),
    [
        ("dwt:haar", {}),
        ("dwt:db2", FLOWS | {"time_wavelet": "db2"}),
        ("radial:1,2", FLOWS),
        ("dwt:haar", FUSION),
        ("dwt:haar", ALONE),
        pytest.param("fft:meyer", {}, marks=pytest.mark.long),
        pytest.param("dct", FLOWS, marks=pytest.mark.long),
        pytest.param("dwt:haar", {"time_levels": 2, "noise": {"dimensions": 1024}}, marks=pytest.mark.long),
        pytest.param("dwt:haar", FLOWS | {"experts": {"tL": "flow", "default": "gan"}}, marks=pytest.mark.long),
        pytest.param("dwt:haar", {"exchange": "none", "teacher_forcing": {"start": 1.0, "end": 1.0}, "pace": "free",
                                  "image_stage": {"enabled": False}}, marks=pytest.mark.long),
        *(
            pytest.param("dwt:haar", ALONE | {"image_stage": {"companion": name}}, marks=pytest.mark.long)
            for name in ("dcgan", "vae", "flow", "diffusion", "flow_matching", "autoregressive")
        ),
    ],
)  # fmt: skip
def test_a_stopped_run_ends_with_the_bytes_of_one_in_one_go(
    transform: str, changes: dict[str, Any], clips: Path, tmp_path: Path
) -> None:
    def settings(name: str, steps: int) -> Any:
        return tiny_run_settings(
            tmp_path / name, clips / "clips", transform=transform, max_steps=steps, **(CLIPS | changes)
        )

    whole, parts = whole_and_resumed(settings)
    assert whole.digest() == parts.digest()
    _, model = open_model(str(tmp_path / "parts"))
    images = model.sample(0, 3).images
    assert images.shape == (3, 3 * FRAMES, SIDE, SIDE)
    assert torch.equal(images[2:], model.sample(0, 1, first=2).images)


@pytest.mark.usefixtures("brief_critic", "brief_likelihood")
@pytest.mark.parametrize("kind", ["gan", "flow"])
def test_every_command_takes_a_run_of_clips(
    kind: str, runs: dict[str, Path], clips: Path, capsys: Capsys, tmp_path: Path
) -> None:
    run = runs[kind]
    commands: list[tuple[object, ...]] = [
        ("generate", run, "--count", 5, "--out", tmp_path / "webp"),
        *(("generate", run, "--count", 1, "--format", k, "--out", tmp_path / k) for k in ("gif", "apng", "mp4", "npy")),
        ("generate", run, "--interpolate", 1, 2, "--frames", 3, "--out", tmp_path / "way"),
        ("generate", run, "--count", 2, "--mix", 1, 2, "--at", "time", "--out", tmp_path / "mix"),
        ("evaluate", run, "--data", clips / "clips", "--count", 64, "--no-learned"),
        ("report", run),
        ("edit", run, "--resample", "tH1", "--gain", "tL.LL1=0.5", "--count", 2, "--out", tmp_path / "edit"),
        ("export", run, "--out", tmp_path / "export"),
    ]
    for command in commands:
        outcome = run_command(capsys, *command)
        assert outcome.code == 0, (command, outcome.err)
    _, model = open_model(str(run))
    expected = model.sample(0, 1).images
    stored = np.load(tmp_path / "npy" / "00000.npy")
    assert stored.shape == (FRAMES, SIDE, SIDE, 3)
    for name in ("webp/00000.webp", "apng/00000.apng"):
        with Image.open(tmp_path / name) as animation:
            assert animation.n_frames == FRAMES  # type: ignore[attr-defined]
            for frame in range(FRAMES):
                animation.seek(frame)
                np.testing.assert_array_equal(np.asarray(animation.convert("RGB")), stored[frame])
    ours = ((expected[0].reshape(FRAMES, 3, SIDE, SIDE) + 1) * 127.5).round().clamp(0, 255).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(stored, ours.numpy())


def test_motion_is_redrawn_and_content_stays(runs: dict[str, Path], capsys: Capsys, tmp_path: Path) -> None:
    """Averages of the pairs of frames are those of one seed, whatever seed the motion is of."""
    run, arguments = runs["flow"], ("--count", 2, "--at", "time", "--format", "npy", "--out")
    for name, seeds in (("same", (1, 1)), ("moved", (1, 2))):
        assert run_command(capsys, "generate", run, "--mix", *seeds, *arguments, tmp_path / name).code == 0
    same, moved = (np.load(tmp_path / name / "00000.npy").astype(float) for name in ("same", "moved"))
    inside = (np.minimum(same, moved) > 0) & (np.maximum(same, moved) < 255)  # what was not clipped
    pairs = [x.reshape(2, 2, SIDE, SIDE, 3) for x in (same, moved)]
    whole = inside.reshape(2, 2, SIDE, SIDE, 3).all(axis=1)
    assert whole.mean() > 0.1
    assert np.abs(pairs[0].mean(1) - pairs[1].mean(1))[whole].max() <= 1
    assert np.abs(same - moved).mean() > 1


def test_clips_get_more_pixels_and_more_frames(
    runs: dict[str, Path], clips: Path, capsys: Capsys, tmp_path: Path
) -> None:
    frames = [np.asarray(Image.open(clips / "videos" / "003" / f"{i:02d}.png")) for i in range(FRAMES)]
    whole = tmp_path / "whole.npy"
    np.save(whole, np.stack(frames))
    outcome = run_command(capsys, "super-resolve", runs["flow"], whole, "--out", tmp_path / "larger")
    assert outcome.code == 0, outcome.err
    assert "PSNR against the originals" in outcome.out
    outcome = run_command(capsys, "super-resolve", runs["flow"], whole, "--in", "time", "--out", tmp_path / "longer")
    assert outcome.code == 0, outcome.err
    assert "averages of 2 frames of the output against the input: largest difference" in outcome.out
    assert float(outcome.out.partition("largest difference ")[2].split()[0]) < 1e-5
    with Image.open(tmp_path / "longer" / "whole.webp") as animation:
        assert animation.n_frames == FRAMES  # type: ignore[attr-defined]
    np.save(tmp_path / "slow.npy", np.stack(frames[:2]))
    outcome = run_command(
        capsys, "super-resolve", runs["gan"], tmp_path / "slow.npy", "--in", "time", "--out", tmp_path / "slow"
    )
    assert outcome.code == 0, outcome.err
    np.save(tmp_path / "one.npy", np.stack(frames[:1]))
    message = refused(run_command(capsys, "super-resolve", runs["gan"], tmp_path / "one.npy", "--in", "time",
                                  "--out", tmp_path / "one"))  # fmt: skip
    assert "has 1 frames, and 2 are needed" in message
    message = refused(run_command(capsys, "super-resolve", runs["gan"], whole, "--in", "time", "--from-level", 2,
                                  "--out", tmp_path / "two"))  # fmt: skip
    assert "the model halves time 1 times; give 1 to 1" in message


@pytest.mark.parametrize("kind", ["webp", "gif", "apng", "mp4", "npy"])
def test_files_of_clips_are_edited(kind: str, runs: dict[str, Path], capsys: Capsys, tmp_path: Path) -> None:
    run = runs["flow"]
    outcome = run_command(capsys, "generate", run, "--count", 1, "--format", kind, "--out", tmp_path / "made")
    assert outcome.code == 0, outcome.err
    file = tmp_path / "made" / f"00000.{kind}"
    edit = ("edit", run, "--image", file, "--gain", "tH1=0", "--out", tmp_path / "still")
    outcome = run_command(capsys, *edit)
    assert outcome.code == 0, outcome.err
    with Image.open(tmp_path / "still" / "00000-after.webp") as animation:
        assert animation.n_frames == FRAMES // 2  # type: ignore[attr-defined]  # pairs of equal frames are joined


def test_what_clips_cannot_be_is_refused(runs: dict[str, Path], capsys: Capsys, tmp_path: Path) -> None:
    generate = ("generate", runs["gan"], "--count", 1, "--out", tmp_path)
    assert "there are webp, gif, apng, mp4, npy" in refused(run_command(capsys, *generate, "--format", "png"))
    assert "--at 7" in refused(run_command(capsys, *generate, "--mix", 1, 2, "--at", "7"))
    picture = tmp_path / "picture.png"
    Image.new("RGB", (SIDE, SIDE)).save(picture)
    message = refused(
        run_command(capsys, "edit", runs["gan"], "--image", picture, "--gain", "tH1=0", "--out", tmp_path)
    )
    assert "has 1 frames, and the model's clips 4" in message


def test_a_film_is_refused_before_it_fills_memory() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8)
    policy = ImagePolicy(size=16, frames=4, max_pixels=5 * 16 * 16)
    data = encode_animation(frames, 8, "webp")
    with pytest.raises(InputError, match=r"the frames of film.webp have more than 1280 pixels together: cut out"):
        read_clip(data, "film.webp", policy)
    np.testing.assert_array_equal(read_clip(data, "film.webp", replace(policy, max_pixels=6 * 16 * 16)), frames)
