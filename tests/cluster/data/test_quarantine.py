"""Images that are damaged for good: left out, told and counted; all others come as if they had never been there."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from cluster.data.exclusion_list import ExclusionList
from cluster.data.packing import pack
from cluster.data.quarantine import (
    QUARANTINE,
    DamageFoundError,
    Quarantine,
    QuarantinedImage,
    read_around_damage,
    reasons_text,
)
from cluster.data.reader import BatchReader
from cluster.data.sampler import BlockShuffle
from cluster.data.settings import DataSettings, ImagePolicy
from cluster.data.shard_index import build_index, index_shards
from cluster.data.shards import ShardSet
from cluster.evaluation.evaluate import real_images
from cluster.execution.callbacks import StepRecord
from cluster.run.data_source import open_source
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder, open_folder
from cluster.training.train import train
from freqgan.errors import InputError, RunError
from launch.settings.load import dump_settings
from tests.campaigns import damage
from tests.support.commands import refused, run_command
from tests.support.runs import Events, tiny_run_settings, trained, trained_with, write_small_shards
from tests.support.shards import shard_members, upload, write_tar

ORDER = DataSettings(shuffle_shards=2)
BATCH = 5


@pytest.mark.parametrize("seed", range(8))
def test_positions_of_what_is_left(seed: int) -> None:
    rng = random.Random(seed)
    order = BlockShuffle([rng.randint(1, 6) for _ in range(5)], seed, block_shards=2)
    omissions = ExclusionList(order)
    positions = {order.locate(p): p for p in rng.sample(range(4 * order.sample_count), order.sample_count - 1)}
    some = list(positions.items())[: rng.randint(0, len(positions))]
    omissions.add((*sample, position) for sample, position in some)
    since = dict(some)
    left = (p for p in count() if p < since.get(order.locate(p), p + 1))
    for number, position in enumerate(islice(left, 7 * order.sample_count)):
        assert omissions.position_of(number) == position
        assert not omissions.passes_over(position)
    given = order.sample_count - len(since)
    assert sum(not omissions.passes_over(p) for p in range(5 * order.sample_count, 6 * order.sample_count)) == given


def test_all_left_out_is_an_error() -> None:
    with pytest.raises(RunError, match="all 2 images are damaged"):
        ExclusionList(BlockShuffle([2], 0)).add([(0, 0, 0), (0, 1, 1)])


def test_the_commonest_reasons() -> None:
    reasons = ["{} in a.tar has {} pixels"] * 3 + ["{} in a.tar is cut off"] * 4 + ["{} x", "{} y", "{} z {}"]
    images = [
        QuarantinedImage("a.tar", f"{i}.png", r.format(f"{i}.png", 10 * i), 0, i, i) for i, r in enumerate(reasons)
    ]
    text = "4 like this: 3.png in a.tar is cut off; 3 like this: 0.png in a.tar has 0 pixels; "
    text += "1 like this: 7.png x; 2 for other reasons"
    assert reasons_text(images) == text


def reader(index: ShardSet, most: int | None = 100) -> BatchReader:
    return BatchReader(index, ImagePolicy(size=8, crop="random"), 3, ORDER, most_damaged=most)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:  # in place: others may have it mapped
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def one_image(folder: Path, index: ShardSet) -> None:
    sample = index.shards[1].samples[2]
    flip(folder / "00001.tar", sample.offset + sample.size_bytes // 2)


def cut_off(folder: Path, index: ShardSet) -> None:
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[: index.shards[1].samples[5].offset + 3])


def emptied(folder: Path, index: ShardSet) -> None:
    (folder / "00001.tar").write_bytes(b"")


def gone(folder: Path, index: ShardSet) -> None:
    (folder / "00001.tar").unlink()


def header(folder: Path, index: ShardSet) -> None:
    flip(folder / "00001.tar", index.shards[1].samples[3].offset - 500)


def end(folder: Path, index: ShardSet) -> None:
    path = folder / "00001.tar"
    path.write_bytes(path.read_bytes()[:-700])


DAMAGES: dict[Callable[[Path, ShardSet], None], set[int]] = {
    one_image: {2},
    cut_off: {5, 6, 7, 8},
    emptied: set(range(9)),
    gone: set(range(9)),
    header: {-1},
    end: {-1},
}


def damage_in_batch(ingest: BatchReader, first: int) -> tuple[QuarantinedImage, ...]:
    try:
        ingest.batch(first, BATCH)
    except DamageFoundError as error:
        return error.found
    return ()


@pytest.mark.parametrize("place", ["disk", "bucket"])
@pytest.mark.parametrize("done", DAMAGES)
def test_the_others_come_in_their_order(
    tmp_path: Path, s3_server: str, place: str, done: Callable[[Path, ShardSet], None]
) -> None:
    for number in range(4):
        write_tar(tmp_path / f"{number:05d}.tar", shard_members(100 * number, 8 + number))
    index_shards(str(tmp_path))
    index = build_index(str(tmp_path))
    order = BlockShuffle([len(shard.samples) for shard in index.shards], 3, block_shards=2)
    with reader(index) as ingest:
        whole = [ingest.batch(position, 1) for position in range(3 * order.sample_count)]
    done(tmp_path, index)
    if place == "bucket":
        index = build_index(upload(tmp_path))
    bad = {(1, sample) for sample in DAMAGES[done]}
    right = [batch for position, batch in enumerate(whole) if order.locate(position) not in bad]
    given, seen = [], dict[tuple[int, int], QuarantinedImage]()
    with reader(index) as ingest:
        for first in range(0, len(right) - BATCH, BATCH):
            while found := damage_in_batch(ingest, first):
                assert not seen.keys() & {one.key for one in found}
                seen |= {one.key: one for one in found}
                ingest.leave_out(found)
            given.append(ingest.batch(first, BATCH))
    assert seen.keys() == bad
    assert all(one.sample_number < 0 or order.locate(one.position) == one.key for one in seen.values())
    assert all("00001.tar" in one.reason for one in seen.values())
    pixels = [image.tobytes() for batch in given for image in batch.images]
    assert pixels == [batch.images[0].tobytes() for batch in right[: len(pixels)]]
    with reader(index) as later:  # one that is told before it reads anything gives the same
        later.leave_out(tuple(seen.values()))
        for number in reversed(range(len(given))):
            assert later.batch(number * BATCH, BATCH).images.tobytes() == given[number].images.tobytes()
    with reader(index, None) as strict, pytest.raises((InputError, RunError), match=r"00001\.tar"):
        strict.batch(0, order.sample_count)


def test_any_damage_is_told_and_the_rest_is_right(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "shard.tar", shard_members(0, damage.IMAGES))
    index_shards(str(tmp_path))
    index = build_index(str(tmp_path))
    assert damage.left_out(path, index, 100, damage.read(index)[0]) == 200


# -- trainings ----------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Shards of pictures, with an index, of which a test may damage some."""
    return write_small_shards(tmp_path)


def damaged_images(data: Path, shards: dict[int, list[int]]) -> None:
    index = build_index(str(data))
    for shard, samples in shards.items():
        for sample in samples:
            one = index.shards[shard].samples[sample]
            flip(Path(index.shards[shard].url), one.offset + one.size_bytes // 2)


def settings_for(run: Path, data: Path, **changes: object) -> RunSettings:
    return tiny_run_settings(run, data, **{"plan": {"bands": ["LL1"]}, "max_steps": 16} | changes)


def entries(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / QUARANTINE).read_text().splitlines()]


DAMAGED = {0: [3, 17], 1: [0, 39], 2: [8]}


@pytest.fixture
def right(tmp_path: Path, data: Path) -> str:
    """The digest of one process that trains on damaged data."""
    damaged_images(data, DAMAGED)
    _, events, digest = trained(settings_for(tmp_path / "right", data))
    assert [count for _, count in events.left_out] == [1, 2, 3, 4, 5]
    assert {(e["shard_number"], e["sample_number"]) for e in entries(tmp_path / "right")} == {
        (shard, sample) for shard, samples in DAMAGED.items() for sample in samples
    }
    return digest


def test_stopped_and_resumed(tmp_path: Path, data: Path, right: str) -> None:
    run = tmp_path / "run"
    trained(settings_for(run, data, max_steps=6))
    _, events, digest = trained(settings_for(run, data))
    assert digest == right
    assert entries(run) == entries(tmp_path / "right")
    assert any("damaged images stay left out, as quarantine.jsonl" in note for note in events.notes)


@pytest.mark.long
def test_actors_with_several_readers(tmp_path: Path, data: Path, ray_cluster: None) -> None:
    damaged_images(data, DAMAGED)
    run = tmp_path / "run"
    settings = settings_for(run, data, executor="ray", readers=3, window=4, max_failures=0, statistics_images=8)
    inline = settings_for(tmp_path / "inline", data, statistics_images=8)
    digest_inline = trained(inline)[2]
    _, events, digest = trained(settings)
    assert digest == digest_inline
    assert entries(run) == entries(tmp_path / "inline")
    assert len(events.left_out) == 5
    assert events.recoveries == []


class Damaging(Events):
    """Damages images while the run goes on."""

    def __init__(self, data: Path, at_step: int) -> None:
        super().__init__()
        self.data, self.at_step = data, at_step

    def on_step(self, record: StepRecord) -> None:
        super().on_step(record)
        if record.step == self.at_step:
            damaged_images(self.data, {0: list(range(0, 40, 8)), 2: [1, 2]})


@pytest.mark.long
def test_damage_that_comes_later(tmp_path: Path, data: Path, ray_cluster: None) -> None:
    """Batches of before keep the images; a reader of sound shards that has the list gives the same to the bit."""
    run, again, sound = tmp_path / "run", tmp_path / "again", tmp_path / "sound"
    copytree(data, sound)
    settings = settings_for(run, data, executor="ray", readers=2, window=4, max_steps=30)
    digest = trained_with(settings, events := Damaging(data, 7))
    assert {count for _, count in events.left_out} == set(range(1, 8))
    assert min(int(str(entry["position"])) for entry in entries(run)) >= 7 * 8
    trained(settings_for(again, sound, max_steps=6))
    (again / QUARANTINE).write_bytes((run / QUARANTINE).read_bytes())
    assert trained(settings_for(again, sound, max_steps=30))[2] == digest


@pytest.mark.parametrize("executor", ["inline", pytest.param("ray", marks=pytest.mark.long)])
def test_too_many(tmp_path: Path, data: Path, executor: str, request: pytest.FixtureRequest) -> None:
    if executor == "ray":
        request.getfixturevalue("ray_cluster")
    damaged_images(data, DAMAGED)
    run = tmp_path / "run"
    settings = settings_for(run, data, max_damaged=3, executor=executor, statistics_images=8)
    with pytest.raises(RunError, match=r"at least [45] damaged images, and max_damaged=3 may be left out"):
        train(settings, Events())
    before = len(entries(run))
    assert before <= 3
    train(settings.model_copy(update={"max_damaged": 5}), events := Events())
    assert [count for _, count in events.left_out] == [*range(before + 1, 6)]


def test_the_command_line(tmp_path: Path, data: Path, held_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training says so; what looks at real images beside it leaves out the same, and other damaged ones."""
    damaged_images(data, {1: [39]})
    run, file = tmp_path / "run", tmp_path / "run.yaml"
    file.write_text(dump_settings(settings_for(run, data)))
    failed = run_command(capsys, "train", str(file), "max_damaged=0")
    assert failed.code == 3
    assert "max_damaged=0 may be left out: 1 like this: " in " ".join(failed.err.split())
    done = run_command(capsys, "train", str(file))
    assert done.code == 0
    said = " ".join(done.err.split())
    assert "left out from here on. That is damage 1 of at most 16" in said
    assert ", 1 damaged" in done.err
    assert "no real images" not in said
    for shard in range(2):  # whichever images a page shows, some of them
        damaged_images(data, {shard: list(range(2, 30, 4))})
    (run / "report" / "images-real.png").unlink()
    reported = run_command(capsys, "report", str(run))
    assert reported.code == 0
    assert re.search(
        r"the report leaves out \d+ damaged images: \d+ like this: .*is not what was indexed", reported.err
    )
    assert (run / "report" / "images-real.png").exists()
    assert "Damaged images" in (run / "report.html").read_text()
    shown = run_command(capsys, "shards", "info", data, "--grid", tmp_path / "grid.png")
    assert shown.code == 0
    assert "random images: " in shown.out
    assert "damaged, and not among them: " in shown.err
    others = tmp_path / "others"
    copytree(held_out, others)
    damaged_images(others, {0: [1, 2, 128]})
    scarce = refused(run_command(capsys, "evaluate", run, "--data", others, "--count", 64))
    assert "without its damaged images 63 are left to compare, and 64 are needed: 3 like this: " in scarce


def test_an_evaluation_compares_different_sound_images(tmp_path: Path, held_out: Path) -> None:
    def pictures(data: Path, said: list[str]) -> list[bytes]:
        halves = real_images(build_index(str(data)), ImagePolicy(size=16), 64, str(data), said.append)
        assert [len(half) for half in halves] == [64, 64]
        return [image.numpy().tobytes() for half in halves for image in half]

    said: list[str] = []
    before = pictures(held_out, said)
    assert said == []
    copytree(held_out, data := tmp_path / "damaged")
    damaged_images(data, {0: [1, 128]})
    after = pictures(data, said)
    assert len(set(after)) == 128
    assert [one for one in before if one in set(after)] == [one for one in after if one in set(before)]
    assert len(set(before) - set(after)) <= 2
    assert "2 damaged images are left out: 2 like this: " in said[0]


def test_all_refused_says_why_and_the_same_folder_trains_once_they_are_allowed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(9):
        pixels = rng.integers(0, 256, (16, 16 + number % 2, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    pack(str(tmp_path), str(data := tmp_path / "shards"))
    damaged_images(data, {0: [4]})
    run = tmp_path / "run"
    settings = settings_for(run, data, ingest={"max_pixels": 100}, max_steps=2, statistics_images=8)
    match = r"all 9 images are damaged or refused: 8 like this: \d+\.png in .* has 1[67] x 16 pixels.*; "
    match += r"1 like this: .*not what was in"
    for _ in range(2):  # a second start finds the same, and not only what the first has left behind
        with pytest.raises(RunError, match=match):
            train(settings, Events())
    some = settings_for(run, data, ingest={"max_pixels": 256}, max_steps=2, statistics_images=8, max_damaged=2)
    with pytest.raises(RunError, match=r"at least 3 damaged images, and max_damaged=2 may be left out.* has 17 x 16 p"):
        train(some, Events())
    train(settings_for(run, data, max_steps=2, statistics_images=8), events := Events())
    assert [image.sample_number for image, _ in events.left_out] == [4]
    assert [entry["sample_number"] for entry in entries(run)] == [4]
    train(settings_for(run, data, max_steps=4, statistics_images=8), events := Events())  # now it has a checkpoint
    assert events.left_out == []
    assert [entry["sample_number"] for entry in entries(run)] == [4]


def test_a_policy_that_is_set(tmp_path: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGBA", (16, 16), (9, 9, 9, 0)).save(picture, "PNG")
    write_tar(tmp_path / "x.tar", {"1.png": picture.getvalue()})
    black = settings_for(tmp_path / "run", tmp_path, ingest={"background": [0, 1, 2]})
    with open_source(black).ingest() as ingest:
        assert (ingest.batch(0, 1).pixels == [0, 1, 2]).all()
    small = settings_for(tmp_path / "run", tmp_path, ingest={"max_pixels": 255})
    with open_source(small).ingest() as ingest, pytest.raises(InputError, match=r"1\.png in .* 255"):
        ingest.batch(0, 1)
    with pytest.raises(ValidationError, match="less than or equal to 255"):
        settings_for(tmp_path / "run", tmp_path, ingest={"background": [0, 0, 256]})


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    folder: Folder = open_folder(str(tmp_path))
    Quarantine(folder, 2).add([QuarantinedImage("a.tar", "b.jpg", "damaged", 0, 1, 2)], 9)
    assert Quarantine(folder, 2).left_out == (QuarantinedImage("a.tar", "b.jpg", "damaged", 0, 1, 2),)
    folder.write(QUARANTINE, folder.read(QUARANTINE)[:-9])
    with pytest.raises(InputError, match=r"quarantine\.jsonl, line 1, is no image that was left out"):
        Quarantine(folder, 2)


def test_reading_goes_on_until_all_that_is_damaged_is_excluded() -> None:
    damaged = [QuarantinedImage("a.tar", f"{i}.jpg", "torn", 0, i, i) for i in range(3)]
    excluded: list[QuarantinedImage] = []

    def read() -> str:
        if len(excluded) < 3:
            raise DamageFoundError(tuple(damaged[len(excluded) :][:2]))
        return "batch"

    assert read_around_damage(read, excluded.extend) == "batch"
    assert excluded == damaged

    def refuse(images: tuple[QuarantinedImage, ...]) -> None:
        raise RunError(f"{len(images)} are too many")

    excluded.clear()
    with pytest.raises(RunError, match="2 are too many"):
        read_around_damage(read, refuse)
