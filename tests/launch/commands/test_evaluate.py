"""``freqgan evaluate``: features learnt on the images that it compares with, and models without an image stage."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
from PIL import Image

from cluster.data.packing import pack
from cluster.evaluation.feature_cache import FOLDER
from tests.support.commands import run_command
from tests.support.glyphs import LETTERS, glyphs, textures
from tests.support.runs import tiny_run_settings, trained
from tests.support.scripts import PAIR

Capsys = pytest.CaptureFixture[str]
METRICS = {"frechet", "kernel", "precision", "density", "coverage", "recall", "copies", "duplicates", "label_accuracy"}


@pytest.fixture(scope="module")
def letters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 200 labelled letters."""
    folder = tmp_path_factory.mktemp("letters")
    images, labels = glyphs(200, seed=1)
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        (folder / LETTERS[label]).mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(folder / LETTERS[label] / f"{number}.png")
    target = tmp_path_factory.mktemp("letter-shards") / "shards"
    pack(str(folder), str(target))
    return target


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder of 80 textures of letters."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, image in enumerate(textures(glyphs(80, seed=2)[0])):
        Image.fromarray(image[0].numpy()).save(folder / f"{number}.png")
    return folder


@pytest.mark.usefixtures("brief_critic")
def test_learned_features_are_measured_unless_they_are_left_out(
    capsys: Capsys, letters: Path, pictures: Path, tmp_path: Path
) -> None:
    data = copytree(letters, tmp_path / "data", ignore=ignore_patterns(FOLDER))
    arguments = ("evaluate", pictures, "--data", data, "--json", tmp_path / "scores.json")
    outcome = run_command(capsys, *arguments, "--no-learned")
    assert outcome.code == 0, outcome.err
    assert "learned" not in outcome.out + outcome.err + (tmp_path / "scores.json").read_text()
    others = json.loads((tmp_path / "scores.json").read_text())

    outcome = run_command(capsys, *arguments)
    assert outcome.code == 0, outcome.err
    assert "teaching the network of learned with 200 real images, once for these" in outcome.err
    assert "a network learns what real images show: step " in outcome.err
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {name: scores[name] for name in others} == others
    for family in ("learned", "learned_holdout"):
        assert {name.partition(".")[2] for name in scores if name.partition(".")[0] == family} == METRICS
        assert scores[f"{family}.frechet"]["ratio"] > 2
        assert f"The network of {family} names the label of" in outcome.err
        accuracy = scores[f"{family}.label_accuracy"]
        assert 1 / len(LETTERS) <= accuracy["floor"] < 0.4
        assert accuracy["value"] * 40 == pytest.approx(round(accuracy["value"] * 40))  # of the 40 that were held out
    assert "what images show, by a network taught on real ones" in outcome.out
    assert "real images that its network labels right" in outcome.out

    again = run_command(capsys, *arguments)
    assert "teaching" not in again.err
    assert json.loads((tmp_path / "scores.json").read_text()) == scores


def test_without_an_image_stage_there_are_no_parts(
    capsys: Capsys, small_shards: Path, held_out: Path, tmp_path: Path, brief_critic: None
) -> None:
    run, file = tmp_path / "run", tmp_path / "scores.json"
    trained(tiny_run_settings(run, small_shards, **PAIR, image_stage={"enabled": False}, max_steps=1))
    outcome = run_command(
        capsys, "evaluate", run, "--data", held_out, "--count", 64, "--parts", "--no-learned", "--json", file,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert (
        "--parts: the model has no image stage: its images are those of the chain, and are scored once" in outcome.err
    )
    assert json.loads(file.read_text())["sliced_wasserstein"].keys() == {"value", "floor", "ratio"}
    assert outcome.err.count("measuring image: critic_accuracy") == 1
