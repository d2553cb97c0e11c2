"""The report: its pictures show what they say, and the page holds them all."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from cluster.imaging.pictures import encode_png
from freqgan.bands import HIGH_ORIENTATIONS, Band, all_bands
from freqgan.model.chain import Chain
from freqgan.pixels import to_pixels
from launch.drawing.figures import detail_count, detail_fit, make_figures, sample_count, shuffle_detail
from launch.drawing.grids import band_pixels, mosaic, tile
from launch.pages import curves
from launch.pages.curves import POINTS, alpha_curve, flow_loss_curves, loss_curves, speed_curve
from launch.run_folder.metrics import MetricsLine
from tests.support.commands import refused, run_command
from tests.support.mixtures import FLOW_OVERRIDES, SMALL_FLOW_OVERRIDES
from tests.support.models import TinyRun, chain_of, pictures, tiny_settings

Capsys = pytest.CaptureFixture[str]
GREY = 128


# -- pictures --------------------------------------------------------------------------------------


def flat(count: int, channels: int = 3, side: int = 2) -> Any:
    """Image i is i everywhere."""
    return np.arange(count, dtype=np.uint8)[:, None, None, None].repeat(channels, 1).repeat(side, 2).repeat(side, 3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("scale", "gap"), [(1, 0), (3, 2)])
def test_tiles_lie_row_by_row(channels: int, scale: int, gap: int) -> None:
    picture = np.asarray(tile(flat(6, channels), 3, scale=scale, gap=gap))
    pitch = 2 * scale + gap
    assert picture.shape == (2 * pitch - gap, 3 * pitch - gap, 3)
    for number in range(6):
        row, column = divmod(number, 3)
        part = picture[row * pitch : row * pitch + 2 * scale, column * pitch : column * pitch + 2 * scale]
        assert (part == number).all()
    outside = picture[2 * scale : pitch] if gap else picture[:0]
    assert (outside == 255).all()


def test_a_grid_is_about_square_and_an_unfinished_row_stays_white() -> None:
    picture = np.asarray(tile(flat(5)))
    assert picture.shape == (4, 6, 3)
    assert (picture[2:, 4:] == 255).all()


def test_a_png_keeps_every_pixel() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, 5, 7), np.uint8)
    back = np.asarray(Image.open(io.BytesIO(encode_png(tile(pixels)))))
    assert np.array_equal(back, pixels[0].transpose(1, 2, 0))


def chain_16(levels: int = 2, **changes: Any) -> Chain:
    return chain_of(tiny_settings(levels=levels, **changes))


@pytest.mark.parametrize("level", [1, 2])
def test_a_low_band_is_shown_in_the_range_of_pixels(level: int) -> None:
    chain = chain_16()
    images = torch.full((1, 3, 16, 16), 200, dtype=torch.uint8)
    shown = band_pixels(chain, Band(level, "LL"), chain.real(images)[Band(level, "LL")])
    assert shown.shape == (1, 3, 16 >> level, 16 >> level)
    assert np.abs(shown.astype(int) - 200).max() <= 1


def test_a_high_band_is_grey_where_nothing_changes_and_clips_at_three_deviations() -> None:
    band = Band(1, "HL")
    values = torch.tensor([0.0, 3.0, -3.0, 9.0, 1.5]).view(1, 1, 1, 5).expand(1, 3, 1, 5)
    shown = band_pixels(chain_16(), band, values)[0, 0, 0]
    assert shown.tolist() == [GREY, 255, 0, 255, 191]


def test_a_pyramid_has_every_band_at_its_place() -> None:
    chain = chain_16()
    names = [b for b in all_bands(2) if b != Band(1, "LL")]
    values = {
        band: torch.full((2, 3, *chain.transform.band_size((16, 16), band.level)), float("nan")) for band in names
    }
    for number, band in enumerate(names):
        values[band][1] = (number - 3) / 2
    picture = np.asarray(mosaic(chain, values, 1, 4))
    assert picture.shape == (64, 64, 3)
    corners = {(2, "LL"): (0, 0), (2, "HL"): (16, 0), (2, "LH"): (0, 16), (2, "HH"): (16, 16)}
    corners |= {(1, "HL"): (32, 0), (1, "LH"): (0, 32), (1, "HH"): (32, 32)}
    for band in names:
        x, y = corners[band[:2]]
        side = 4 * (16 >> band.level)
        expected = band_pixels(chain, band, values[band][1:])[0, :, 0, 0]
        assert (picture[y + side - 4 : y + side - 1, x + side - 4 : x + side - 1] == expected).all(), band


def test_a_band_without_a_gan_is_white_in_the_pyramid() -> None:
    picture = np.asarray(mosaic(chain_16(1), {Band(1, "LL"): torch.zeros(1, 3, 8, 8)}, 0, 1))
    assert (picture[8:] == 255).all()
    assert not (picture[:8, :8] == 255).all()


# -- do the bands fit? -----------------------------------------------------------------------------


def shapes(count: int, side: int = 16) -> torch.Tensor:
    """Sharp discs at random places on a smooth ground, in [-1, 1]."""
    rng = torch.Generator().manual_seed(3)
    places = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(places, places, indexing="ij")
    centre = torch.rand(count, 2, 1, 1, generator=rng) * 0.6 + 0.2
    inside = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2 < 0.05).float()
    return (inside * 1.6 - 0.8)[:, None].expand(count, 3, side, side).contiguous()


@pytest.mark.parametrize("moved", [[1], [2], [1, 2]])
def test_shuffling_moves_only_high_bands_of_the_levels_named(moved: list[int]) -> None:
    chain = chain_16()
    images = pictures(chain.settings, 5).float() / 127.5 - 1
    before, after = (chain.transform.analyse(x) for x in (images, shuffle_detail(chain, images, moved)))
    for level in (1, 2):
        for orientation in HIGH_ORIENTATIONS:
            band = Band(level, orientation)
            expected = before[band].roll(1, 0) if level in moved else before[band]
            torch.testing.assert_close(after[band], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(after[Band(2, "LL")], before[Band(2, "LL")], atol=1e-5, rtol=0)


def test_the_measure_of_fit_sees_a_shuffle() -> None:
    chain, images = chain_16(), shapes(32)
    whole, torn = detail_fit(images), detail_fit(shuffle_detail(chain, images, [1]))
    assert whole > 0.5
    assert torn < whole - 0.3


def test_the_measure_of_fit_does_not_depend_on_contrast_and_is_0_without_detail() -> None:
    images = shapes(8)
    assert detail_fit(images / 3) == pytest.approx(detail_fit(images), abs=1e-4)
    assert detail_fit(torch.zeros(4, 3, 16, 16)) == 0.0


# -- all figures of a model ------------------------------------------------------------------------

MODELS: list[dict[str, Any]] = [
    {},
    {"levels": 2, "channels": 1},
    {"levels": 2, "plan": {"strict_nesting": True, "high_gans": {1: 1, 2: 2}}},
    {"image_stage": {"alpha": "per_band"}, "classes": 2},
    {"plan": {"low_gans": {1: 2}}},
    {"levels": 2, "plan": {"bands": ["LL2", "HL2", "LH2", "HH2"]}},
]


@pytest.mark.parametrize("changes", MODELS)
@pytest.mark.parametrize("with_real", [True, False])
def test_figures_of_every_kind_of_model(changes: dict[str, Any], with_real: bool) -> None:
    settings = tiny_settings(**changes)
    synthesiser = TinyRun(settings).synthesiser()
    generated = synthesiser.sample(0, 9)
    figures = make_figures(synthesiser, generated, pictures(settings, 9) if with_real else None)
    kinds = ["real", "generated"] if with_real else ["generated"]
    expected = {f"band-{band}-{kind}" for band in generated.sub_images for kind in kinds}
    expected |= {f"{name}-{kind}" for name in ("images", "mosaic", "example") for kind in kinds}
    expected |= {"part-chain", "part-blended", "part-other", "fit-level-1"}
    expected |= {"fit-all-levels"} if settings.levels > 1 else set()
    assert set(figures.pictures) == expected
    assert list(figures.fit) == [*kinds, "shuffled"]
    assert all(-1 <= value <= 1 for value in figures.fit.values())
    grid = np.asarray(figures.pictures["images-generated"])
    scale = (grid.shape[0] - 4) // 48
    shown = to_pixels(generated.images)[4].numpy().transpose(1, 2, 0).repeat(scale, 0).repeat(scale, 1)
    start = 16 * scale + 2
    assert (grid[start : start + 16 * scale, start : start + 16 * scale] == shown).all()


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 1024])
def test_grids_are_square_and_not_too_large(size: int) -> None:
    large, small = sample_count((size, size)) ** 0.5, detail_count((size // 2, size)) ** 0.5
    assert large.is_integer()
    assert small.is_integer()
    assert 2 <= small < large <= 8
    assert large * size <= max(768, 3 * size)


# -- curves ----------------------------------------------------------------------------------------


def history(count: int, names: list[str]) -> list[MetricsLine]:
    numbers = {"loss_d": 0.7, "loss_g": 0.7}
    stages = dict.fromkeys(names, numbers) | {"image": numbers | {"alpha": 0.5}}
    return [MetricsLine(step, 8 * step, 0.1 * step, 80.0, stages) for step in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, POINTS + 1])
def test_curves_of_short_and_long_histories(count: int) -> None:
    lines = history(count, ["LL1", "HL1", "LH1", "HH1", "HH1.2"])
    for picture in (loss_curves(lines, True), alpha_curve(lines), speed_curve(lines)):
        assert picture is not None
        pixels = np.asarray(picture.convert("RGBA"))
        assert (pixels[..., 3] > 0).any(), "nothing is drawn"
        assert (pixels[..., 3] == 0).any(), "the ground must stay transparent"


# -- the page --------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What a browser would load and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "action", "srcset") and value]
        if tag == "img":
            assert values.get("alt"), "an image without words for those who cannot see it"
            self.sources.append(values["src"] or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def run_folder(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a folder whose name is a trap for a page that does not escape."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("runs") / "<b>run&amp;"
    with pytest.raises(SystemExit) as leaving:
        main(["train", "smoke", f"data={small_shards}", f"run={folder}", "classes=2", "levels=2"])
    assert leaving.value.code == 0
    return folder


def page_of(run: Path) -> Page:
    return Page((run / "report.html").read_text())


def test_training_leaves_a_page_with_every_picture_inside(run_folder: Path) -> None:
    page = page_of(run_folder)
    files = {path.read_bytes() for path in (run_folder / "report").glob("*.png")}
    inside = {base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.sources}
    assert inside == files
    assert len(files) >= 8 + 8 + 11
    for data in files:
        Image.open(io.BytesIO(data)).verify()


def test_the_page_loads_nothing_and_runs_nothing(run_folder: Path) -> None:
    page, text = page_of(run_folder), (run_folder / "report.html").read_text()
    assert page.links == []
    assert "script" not in page.tags
    assert "b" in page.tags
    assert "<b>run" not in text
    assert "url(" not in text
    assert "<b>run&amp;" in page.text


def test_the_page_says_the_key_facts(run_folder: Path) -> None:
    text = page_of(run_folder).text
    for fact in (
        "images seen 48",
        "step 6 of 6",
        "16 px, colour",
        "experts of bands 8 GANs",
        "levels 2",
        "dwt:haar",
        "wall time",
        "images/s",
    ):
        assert fact in text
    for heading in ("Real and generated", "What each part contributes", "Do the bands fit together?", "Every band"):
        assert heading in text
    assert "same class" in text
    assert "LL2, HL2, LH2, HH2, LL1, HL1, LH1" in text
    assert "checkpoint_every: 3" in text
    assert "What the 2 labels mean" in text
    assert "0 edges" in text
    assert "1 ramps" in text


def test_a_report_can_be_written_again_and_is_the_same(capsys: Capsys, run_folder: Path) -> None:
    before = (run_folder / "report.html").read_bytes()
    (run_folder / "report" / "stale.png").write_bytes(b"")
    outcome = run_command(capsys, "report", run_folder)
    assert outcome.code == 0
    assert outcome.out.strip() == f"{run_folder}/report.html"
    assert (run_folder / "report.html").read_bytes() == before
    assert not (run_folder / "report" / "stale.png").exists()


def test_without_its_data_a_report_says_so(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.symlink_to(small_shards)
    assert run_command(capsys, "train", "smoke", f"data={shards}", f"run={tmp_path}/run").code == 0
    shards.unlink()
    outcome = run_command(capsys, "report", tmp_path / "run")
    assert outcome.code == 0
    assert "note: the report shows no real images" in outcome.err
    page = page_of(tmp_path / "run")
    assert "No real images are shown" in page.text
    assert not list((tmp_path / "run" / "report").glob("*real*"))
    assert "No real images" not in Page(written_again(capsys, tmp_path / "run", small_shards)).text


def written_again(capsys: Capsys, run: Path, data: Path) -> str:
    assert run_command(capsys, "report", run, "--data", data).code == 0
    return (run / "report.html").read_text()


def test_without_metrics_a_report_leaves_out_the_curves(capsys: Capsys, run_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    (copy / "checkpoints").parent.mkdir()
    (copy / "checkpoints").symlink_to(run_folder / "checkpoints")
    assert run_command(capsys, "report", copy).code == 0
    assert "Losses of" not in page_of(copy).text
    assert "wall time" not in page_of(copy).text


def test_a_report_of_nothing_is_refused(capsys: Capsys, tmp_path: Path) -> None:
    assert "holds no checkpoint" in refused(run_command(capsys, "report", tmp_path))


def test_upscaling_keeps_pixels_square() -> None:
    image = functional.pad(torch.ones(1, 3, 1, 1), (0, 1, 0, 1)).mul(255).to(torch.uint8).numpy()
    picture = np.asarray(tile(image, scale=4))
    assert picture.shape == (8, 8, 3)
    assert (picture[:4, :4] == 255).all()
    assert picture.sum() == 16 * 3 * 255


def step_line(step: int, begun_s: dict[str, float]) -> MetricsLine:
    stages = {name: {"begun_s": at, "seconds": 0.5, "loss_d": 0.5} for name, at in begun_s.items()}
    return MetricsLine(step, 8 * step, 1.0, 10.0, stages)


def test_the_timeline_shows_the_last_steps_of_one_start() -> None:
    """A start of before, whose clock was another, is left out; so are lines without times."""
    before = [step_line(step, {"LL1": 100.0 + step, "image": 101.0 + step}) for step in range(3)]
    after = [step_line(3 + step, {"LL1": 1.0 * step, "image": 1.0 + step}) for step in range(4)]
    assert [line.step for line in curves._last_of_one_start([*before, *after])] == [3, 4, 5, 6]
    many = [step_line(step, {"LL1": 1.0 * step}) for step in range(50)]
    assert [line.step for line in curves._last_of_one_start(many)] == list(range(40, 50))
    assert curves.timeline([*before, after[0]]) is None
    untimed = MetricsLine(7, 56, 1.0, 10.0, {"LL1": {"seconds": 0.5}, "image": {"seconds": 0.5}})
    assert curves.timeline([*after, untimed]) is None
    picture = np.asarray(curves.timeline(after).convert("RGBA"))  # type: ignore[union-attr]
    colours = {tuple(pixel) for pixel in picture.reshape(-1, 4) if pixel[3] == 255}
    assert len([c for c in colours if max(c[:3]) - min(c[:3]) > 60]) >= 4  # a colour per step


# -- flow experts, and chains without an image stage -----------------------------------------------


def trained_page(capsys: Capsys, small_shards: Path, run: Path, *overrides: str) -> Page:
    outcome = run_command(capsys, "train", "smoke", f"data={small_shards}", f"run={run}", "max_steps=3", *overrides)
    assert outcome.code == 0, outcome.err
    return page_of(run)


def test_the_page_of_flow_experts_speaks_of_them(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    page = trained_page(capsys, small_shards, tmp_path / "run", *FLOW_OVERRIDES)
    files = {path.stem for path in (tmp_path / "run" / "report").glob("*.png")}
    said = page.text.partition("All settings")[0].partition("FreqGAN:")[2]
    assert "GAN" not in said
    assert "discriminator" not in said
    for words in ("One flow expert per frequency band", "experts of bands 2 flow experts", "The flow matching loss"):
        assert words in page.text
    assert "What each part contributes" not in page.text
    assert {"curves-flow", "curves-speed", "part-blended"} <= files
    assert not files & {"curves-losses", "curves-alpha", "part-chain", "part-other"}


def test_the_page_of_a_mixed_chain_shows_both_kinds(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    page = trained_page(
        capsys, small_shards, tmp_path / "run", "experts.LL1=flow", "plan.bands=[LL1,HL1]", *SMALL_FLOW_OVERRIDES
    )
    for words in ("One expert per frequency band", "experts of bands 1 flow expert and 1 GAN", "alpha"):
        assert words in page.text


def test_the_page_of_a_model_without_levels_has_no_bands(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    page = trained_page(
        capsys, small_shards, tmp_path / "run", "levels=0", "experts=flow", "image_stage=none", *SMALL_FLOW_OVERRIDES
    )
    assert "One flow expert of whole images" in page.text
    for heading in ("Do the bands fit together?", "One image as its bands", "Every band"):
        assert heading not in page.text
    assert len(page.sources) == len(list((tmp_path / "run" / "report").glob("*.png")))


@pytest.mark.parametrize("count", [1, POINTS + 1])
def test_losses_are_drawn_by_kind(count: int) -> None:
    stages = {"LL1": {"loss": 0.5}, "HL1": {"loss_d": 0.7, "loss_g": 0.9}}
    lines = [MetricsLine(step, 8 * step, 0.1 * step, 80.0, stages) for step in range(1, count + 1)]
    for picture in (flow_loss_curves(lines), loss_curves(lines, True)):
        assert picture is not None
        assert (np.asarray(picture.convert("RGBA"))[..., 3] > 0).any()
    assert loss_curves([replace(line, stages={"LL1": line.stages["LL1"]}) for line in lines], True) is None
    assert flow_loss_curves([replace(line, stages={"HL1": line.stages["HL1"]}) for line in lines]) is None
