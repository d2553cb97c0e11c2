"""Videos, animations, arrays and folders of frames through ``shards pack``: samples, labels, what is refused."""

from __future__ import annotations

import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cluster.data.packing import pack
from cluster.data.shard_index import build_index, index_shards, verify_shards
from cluster.formats.animations import encode_animation
from cluster.formats.source_format import PieceOptions, Tally, Values
from cluster.formats.strips import unstacked
from freqgan.errors import InputError
from tests.support.clips import Frames, moving_frames, packed_samples, video_bytes, write_frames
from tests.support.commands import refused, run_command
from tests.support.s3_server import BUCKET
from tests.support.shards import fill_source, image_bytes, make_file, npy_bytes, upload, write_tar, zip_of

Capsys = pytest.CaptureFixture[str]
EIGHT = PieceOptions(frames=8)


def frames_in(pixels: Frames, count: int = 8) -> Values:
    return unstacked(pixels, count, "x")


def clip_source(folder: Path) -> Path:
    """Two classes: a folder of frames and a GIF; a video, an array, an APNG and a WebP, of 20 frames each."""
    write_frames(folder / "cat" / "run", moving_frames(20, scene=0))
    make_file(folder / "cat" / "b.gif", encode_animation(moving_frames(20, scene=1), 10, "gif"))
    make_file(folder / "dog" / "c.mkv", video_bytes(moving_frames(20, scene=2)))
    make_file(folder / "dog" / "d.npy", npy_bytes(moving_frames(20, scene=3)))
    make_file(folder / "dog" / "e.png", encode_animation(moving_frames(20, scene=4), 12.5, "apng"))
    make_file(folder / "dog" / "f.webp", encode_animation(moving_frames(20, scene=5), 12.5, "webp"))
    return folder


def test_every_source_becomes_clips(tmp_path: Path) -> None:
    report = pack(str(clip_source(tmp_path / "in")), str(tmp_path / "out"), options=EIGHT)
    assert (report.images, report.files, report.frames, report.classes) == (12, 6, 8, ["cat", "dog"])
    assert report.tally == Tally(clips=12, left_over=24)
    assert (report.others, report.hidden, report.empty, report.without_clips) == (0, 0, [], ())
    rates = {0: None, 1: 10, 2: 25, 3: None, 4: 12.5, 5: 12.5}
    expected = {
        (scene, start): moving_frames(20, scene=scene)[start : start + 8] for scene in rates for start in (0, 8)
    }
    order = []
    for pixels, fields, label in packed_samples(str(tmp_path / "out")):
        frames = frames_in(pixels)
        differences = {key: np.abs(frames.astype(int) - there).mean() for key, there in expected.items()}
        scene, start = min(differences, key=lambda key: differences[key])
        assert differences[scene, start] <= (3 if scene == 1 else 0)
        assert label == (scene > 1)
        assert fields == {"frames": 8} | ({} if rates[scene] is None else {"fps": rates[scene]})
        order.append((scene, start))
    assert sorted(order) == sorted(expected)
    assert all(order[number][1] == 0 and order[number + 1] == (order[number][0], 8) for number in range(0, 12, 2))


def test_the_same_source_gives_the_same_bytes(tmp_path: Path, s3_server: str) -> None:
    source = clip_source(tmp_path / "in")
    options = PieceOptions(frames=8, size=8, quality=80, fps=10)
    whole = []
    for number, place in enumerate((str(source), str(zip_of(source, tmp_path / "in.zip")), upload(source))):
        pack(place, str(tmp_path / f"out{number}"), options=options, shard_samples=4)
        shards = sorted((tmp_path / f"out{number}").glob("*.tar"))
        assert len(shards) > 1
        whole.append([path.read_bytes() for path in shards])
    assert whole[0] == whole[1] == whole[2]
    assert build_index(str(tmp_path / "out0")).shards[0].samples[0].image_name.endswith(".jpg")


def test_clips_go_to_a_bucket(tmp_path: Path, s3_server: str) -> None:
    write_frames(tmp_path / "in", moving_frames(16))
    pack(str(tmp_path / "in"), f"s3://{BUCKET}/clips-of-frames", options=EIGHT)
    pixels, fields, label = packed_samples(f"s3://{BUCKET}/clips-of-frames")[1]
    assert (frames_in(pixels) == moving_frames(16)[8:]).all()
    assert (fields, label) == ({"frames": 8}, None)


def test_frames_in_the_folder_itself_are_in_natural_order(tmp_path: Path) -> None:
    write_frames(tmp_path / "in", moving_frames(12), first=5, step=5)  # 5, 10, ... 60, without leading zeros
    report = pack(str(tmp_path / "in"), str(tmp_path / "out"), options=PieceOptions(frames=12, fps=30))
    ((pixels, fields, label),) = packed_samples(str(tmp_path / "out"))
    assert (frames_in(pixels, 12) == moving_frames(12)).all()
    assert (fields, label, report.classes, report.tally) == ({"frames": 12, "fps": 30}, None, [], Tally(clips=1))


def test_a_missing_frame_and_a_cut_end_a_clip(tmp_path: Path) -> None:
    frames = np.concatenate([moving_frames(10), moving_frames(10, scene=1)])
    write_frames(tmp_path / "in" / "v", frames)
    (tmp_path / "in" / "v" / "frame-4.png").unlink()
    report = pack(str(tmp_path / "in"), str(tmp_path / "out"), options=PieceOptions(frames=5))
    assert report.tally == Tally(clips=3, cuts=1, gaps=1, left_over=4)
    starts = [4, 10, 15]
    for (pixels, _, _), start in zip(packed_samples(str(tmp_path / "out")), starts, strict=True):
        assert (frames_in(pixels, 5) == frames[start : start + 5]).all()


def test_what_lies_beside_a_video_lies_beside_its_clips(tmp_path: Path) -> None:
    source = tmp_path / "in"
    write_frames(source / "run", moving_frames(16))
    make_file(source / "run.json", b'{"age": 3, "fps": 24}')
    make_file(source / "run.txt", b"a run")
    make_file(source / "b.mkv", video_bytes(moving_frames(16, scene=1)))
    make_file(source / "b.npy", npy_bytes([1.0, 2.0]))
    report = pack(str(source), str(tmp_path / "out"), options=EIGHT)
    assert report.beside == {"npy": 1, "txt": 1, "json": 1}
    assert (report.others, report.images) == (0, 4)
    shard = build_index(str(tmp_path / "out")).shards[0]
    kinds = sorted(tuple(sorted(member.extension for member in sample.members)) for sample in shard.samples)
    assert kinds == [("json", "npy")] * 2 + [("json", "txt")] * 2
    fields = [fields for _, fields, _ in packed_samples(str(tmp_path / "out"))]
    assert sorted(fields, key=len) == [{"frames": 8, "fps": 25}] * 2 + [{"age": 3, "fps": 24, "frames": 8}] * 2
    make_file(source / "b.json", b'{"fps": 24}')
    with pytest.raises(InputError, match=r"b\.mkv in .* is described by a field 'fps', 24, and the sample has 25"):
        pack(str(source), str(tmp_path / "out2"), options=EIGHT)


def test_a_table_names_videos_and_folders(tmp_path: Path, capsys: Capsys) -> None:
    source = clip_source(tmp_path / "in")
    rows = "file_name,kind,says\ncat/run,walk,it walks\ndog/c.mkv,rest,it rests\nnone.mp4,rest,\n"
    (source / "metadata.csv").write_text(rows)
    told = run_command(
        capsys, "shards", "pack", source, tmp_path / "out", "--frames", "8", "--class-column", "kind",
        "--caption-column", "says",
    ).out  # fmt: skip
    assert "4 clips of 8 frames of 2 videos of 2 classes in 1 shard" in told
    assert "in no clip: 8 frames at the ends of videos\n" in told
    assert "not packed, for it does not name them: 4 images" in told
    assert "in it without an image: 1 row (none.mp4)" in told
    assert sorted(label or 0 for _, _, label in packed_samples(str(tmp_path / "out"))) == [0, 0, 1, 1]


def test_the_report_says_what_is_in_no_clip(tmp_path: Path, capsys: Capsys) -> None:
    source = tmp_path / "in"
    make_file(source / "a.mkv", video_bytes(np.concatenate([moving_frames(9), moving_frames(9, scene=1)])))
    make_file(source / "short.gif", encode_animation(moving_frames(3), 10, "gif"))
    make_file(source / "b.json", b"{}")
    told = run_command(capsys, "shards", "pack", source, tmp_path / "out", "--frames", "8", "--quality", "90").out
    assert "2 clips of 8 frames of 2 videos in 1 shard" in told
    assert "passed over: 1 other file" in told
    assert "in no clip: 5 frames at the ends of videos and before 1 cut\n" in told
    assert "without clips, for they are too short: 1 video (short.gif)\n" in told
    assert re.search(r"images +2: 2 \.jpg", run_command(capsys, "shards", "info", tmp_path / "out").out)


def test_nothing_long_enough_is_an_error(tmp_path: Path) -> None:
    make_file(tmp_path / "in" / "a.gif", encode_animation(moving_frames(3), 10, "gif"))
    what = r"/in gives no clip of 8 frames: 3 frames of 1 source are too few in one piece; give fewer --frames"
    with pytest.raises(InputError, match=what):
        pack(str(tmp_path / "in"), str(tmp_path / "out"), options=EIGHT)
    assert not (tmp_path / "out").exists()


# -- arrays as still images ------------------------------------------------------------------------


def test_arrays_and_tiffs_become_images(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    source = fill_source(tmp_path / "in", ("cat",), 3)
    arrays: dict[str, NDArray[Any]] = {
        "a": random.integers(0, 256, (9, 8, 4), dtype=np.uint8), "b": random.normal(0, 1, (9, 8)).astype(np.float32),
        "c": random.integers(0, 256, (9, 8, 3), dtype=np.uint8), "d": random.integers(0, 65536, (9, 8, 12)),
    }  # fmt: skip
    for name, values in arrays.items():
        make_file(source / "cat" / f"{name}.npy", npy_bytes(values))
    np.savez(source / "cat" / "e.npz", only=arrays["a"])
    tifffile.imwrite(
        source / "cat" / "f.tif", arrays["d"].astype(np.uint16), photometric="minisblack", planarconfig="contig"
    )
    tifffile.imwrite(source / "cat" / "g.tiff", arrays["c"], photometric="rgb")
    make_file(source / "cat" / "0.npy", npy_bytes([1.0, 2.0]))  # the vector of 0.jpeg
    make_file(source / "cat" / "h.npy", npy_bytes([1.0, 2.0]))  # the vector of nothing
    make_file(source / "cat" / "a.json", b'{"x": 1}')
    report = pack(str(source), str(tmp_path / "out"))
    assert (report.images, report.others, report.beside) == (10, 1, {"npy": 1, "json": 1})
    samples = {name: fields for shard in build_index(str(tmp_path / "out")).shards
               for fields in shard.samples for name in [fields.image_name.partition(".")[2]]}  # fmt: skip
    assert set(samples) == {"jpg", "png", "webp", "image.npy"}
    there = [(pixels.tobytes(), fields) for pixels, fields, _ in packed_samples(str(tmp_path / "out"))]
    for name, kind in (("a", "uint8"), ("b", "float32"), ("c", "uint8"), ("d", "uint16")):
        fields = [found for data, found in there if data == arrays[name].astype(kind).tobytes()]
        assert len(fields) == {"a": 2, "b": 1, "c": 2, "d": 2}[name]
        assert fields.count({"x": 1}) == (name == "a")


def test_arrays_of_an_npz_are_named(tmp_path: Path, capsys: Capsys) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "a.npz", x=np.zeros((4, 4), np.uint8), y=np.ones((4, 4), np.uint8))
    message = refused(run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out"))
    assert re.search(r"a\.npz in .*/in holds 2 arrays \(x, y\): name one by --array", message)
    run_command(capsys, "shards", "pack", tmp_path / "in", tmp_path / "out", "--array", "y")
    assert packed_samples(str(tmp_path / "out"))[0][0].max() == 1


def test_damage_is_named_all_at_once(tmp_path: Path) -> None:
    source = tmp_path / "in"
    whole = npy_bytes(np.zeros((9, 9), np.uint8))
    make_file(source / "a.npy", whole[:-1])
    make_file(source / "b.npy", b"hello")
    make_file(source / "c.tif", b"hello")
    make_file(source / "d.npz", b"hello")
    make_file(source / "e.npy", npy_bytes(np.full((3, 3), np.nan)))
    make_file(source / "f.npy", npy_bytes(np.zeros((9, 9, 9, 9), np.uint8)))
    make_file(source / "g.jpg", image_bytes(1)[:-40])
    make_file(source / "h.png", image_bytes(1, "PNG"))
    with pytest.raises(InputError) as caught:
        pack(str(source), str(tmp_path / "out"))
    message = str(caught.value)
    assert message.startswith("7 of 8 images cannot be packed:\n")
    for what in (
        "a.npy in .*cut off", "b.npy in .*no .npy", "c.tif in .*no TIFF", "d.npz in .*no .npz", "e.npy in .*not finite",
        "f.npy in .*by --frames", "g.jpg in .*damaged",
    ):  # fmt: skip
        assert re.search(what, message)
    assert not (tmp_path / "out").exists()


def test_damaged_videos_are_named_all_at_once(tmp_path: Path) -> None:
    source = clip_source(tmp_path / "in")
    for name in ("cat/b.gif", "dog/c.mkv", "dog/f.webp"):
        data = (source / name).read_bytes()
        (source / name).write_bytes(data[: len(data) // 2])
    (source / "cat" / "run" / "frame-7.png").write_bytes(image_bytes(1, "PNG"))  # of another size
    with pytest.raises(InputError) as caught:
        pack(str(source), str(tmp_path / "out"), options=EIGHT)
    message = str(caught.value)
    assert message.startswith("4 of 6 videos cannot be packed:\n")
    for what in ("b.gif", "c.mkv", "f.webp", r"frame-7\.png in .* is 8 ?x ?8 in colour of 8 bits, and cat/run/frame-1"):
        assert re.search(what, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "options", "what"),
    [
        ({"a.gif": b"GIF89a", "b.png": b""}, {}, r"1 images that are no JPEG.*a\.gif: convert or remove them; clips"),
        ({"a.mp4": b"x"}, {}, r"holds no images .*; clips of a\.mp4 are packed where --frames says of how many frames"),
        ({"a.bmp": b"BM"}, {"frames": 8}, r"holds 1 images that are no JPEG, PNG or WebP, the first is a\.bmp"),
        ({"v/a.png": None}, {"frames": 8}, r"v/a\.png in .* has no number, .*number the frames"),
        ({"v/1.png": None, "v/01.jpg": None}, {"frames": 8}, r"v/01\.jpg and v/1\.png in .* are both frame 1: rename"),
        ({"v/a1.png": None, "v/b2.png": None}, {"frames": 8}, r"v in .* holds frames of 2 sequences .*: put each into"),
        ({"1.png": None, "v/2.png": None}, {"frames": 8}, r"holds frames beside v: put the frames of each video into"),
        ({"c/1.png": None, "c/v/2.png": None}, {"frames": 8}, r"holds 1 images beside its class folders|holds frames"),
        ({"a.npy": npy_bytes(np.zeros((9, 8, 3)))}, {"frames": 8}, r"a still image of 3 channels, and clips were"),
    ],
)  # fmt: skip
def test_sources_that_are_refused(
    tmp_path: Path, files: dict[str, bytes | None], options: dict[str, Any], what: str
) -> None:
    for name, content in files.items():
        make_file(tmp_path / "in" / name, image_bytes(1, "PNG") if content is None else content)
    with pytest.raises(InputError, match=what):
        pack(str(tmp_path / "in"), str(tmp_path / "out"), options=PieceOptions(**options))
    assert not (tmp_path / "out").exists()


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_file(tmp_path / "in" / "a.mkv", video_bytes(moving_frames(9)))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r'a\.mkv in .*: videos are read .*pip install "freqgan\[video\]"'):
        pack(str(tmp_path / "in"), str(tmp_path / "out"), options=EIGHT)


def test_options_of_clips_need_frames(tmp_path: Path, capsys: Capsys) -> None:
    source = fill_source(tmp_path / "in")
    message = refused(run_command(capsys, "shards", "pack", source, tmp_path / "out", "--size", "64"))
    assert "--size is for clips, and images are packed as they are: add --frames, as 16" in message


# -- arrays in shards ------------------------------------------------------------------------------


def test_an_array_is_the_image_of_its_key(tmp_path: Path, capsys: Capsys) -> None:
    pixels = np.arange(60, dtype=np.uint16).reshape(5, 4, 3)
    members = {
        "a.image.npy": npy_bytes(pixels), "a.npy": npy_bytes([1.0]), "a.cls": b"1", "b.png": image_bytes(1, "PNG"),
    }  # fmt: skip
    write_tar(tmp_path / "0.tar", members)
    (shard,) = index_shards(str(tmp_path))
    assert [(sample.key, sample.image_name, sample.label) for sample in shard.samples] == [
        ("a", "a.image.npy", 1), ("b", "b.png", None),
    ]  # fmt: skip
    assert [member.extension for member in shard.samples[0].members] == ["npy"]
    assert verify_shards(str(tmp_path)) == [(f"{tmp_path}/0.tar", True, None)]
    assert re.search(r"2: 1 \.image\.npy, 1 \.png", run_command(capsys, "shards", "info", tmp_path).out)
    data = bytearray((tmp_path / "0.tar").read_bytes())
    data[shard.samples[0].offset + shard.samples[0].size_bytes - 1] ^= 1
    (tmp_path / "0.tar").write_bytes(data)
    assert "a.image.npy at offset" in str(verify_shards(str(tmp_path))[0][2])


def test_arrays_that_are_no_images_are_refused(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", {"a.image.npy": npy_bytes(np.zeros((4, 4)))})
    with pytest.raises(InputError, match=r"a\.image\.npy in .*0\.tar holds float64: images are uint8"):
        index_shards(str(tmp_path))
    write_tar(
        tmp_path / "0.tar", {"a.image.npy": npy_bytes(np.zeros((4, 4), np.uint8)), "a.png": image_bytes(1, "PNG")}
    )
    with pytest.raises(InputError, match=r"two images of key a, a\.image\.npy and a\.png: rename one"):
        index_shards(str(tmp_path))


def test_values_stay_in_the_index(tmp_path: Path) -> None:
    pack(str(fill_source(tmp_path / "in")), str(tmp_path / "out"))
    path = tmp_path / "out" / "index.json"
    content = json.loads(path.read_text())
    assert "values" not in content
    path.write_text(json.dumps(content | {"values": {"offset": -1024, "slope": 1, "unit": "HU"}}))
    index_shards(str(tmp_path / "out"))
    assert json.loads(path.read_text())["values"] == {"offset": -1024, "slope": 1, "unit": "HU"}
    path.write_text(json.dumps(content | {"values": [1]}))
    with pytest.raises(InputError, match=r"index\.json is no index of shards \(values are no object\)"):
        build_index(str(tmp_path / "out"))


def test_grey_frames_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    frames = moving_frames(8)[..., 0].astype(np.uint16) * 256 + 7
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "in" / f"{number}.png")
    pack(str(tmp_path / "in"), str(tmp_path / "out"), options=EIGHT)
    shard = build_index(str(tmp_path / "out")).shards[0]
    data = Path(shard.url).read_bytes()[shard.samples[0].offset :][: shard.samples[0].size_bytes]
    assert (np.asarray(Image.open(io.BytesIO(data))) == frames.reshape(-1, 24)).all()
