"""Reports of clips, volumes and many channels in a real browser: what plays, stops, and is seen through a window."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from launch.pages.report import write_report
from tests.support.browser import NARROW, WIDE, Scheme, browser, check_accessible, check_fits, watched_page
from tests.support.clip_runs import (
    FRAMES,
    SIDE,
    write_runs,
)

__all__ = ["browser"]

GAP = 1
GRID = 4 * SIDE + 3 * GAP
FREEZE = """(time) => document.getAnimations().forEach((animation) => {
    animation.pause();
    animation.currentTime = time;
})"""
STATES = "() => document.getAnimations().map((animation) => animation.playState)"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs with their reports."""
    folder = tmp_path_factory.mktemp("reports")
    runs = write_runs(folder)
    for run in runs.values():
        write_report(str(run), note=lambda _: None)
    return runs


def text_of(run: Path) -> str:
    return (run / "report.html").read_text()


@pytest.fixture
def clip_page(browser: Browser, runs: dict[str, Path]) -> Iterator[Page]:
    with watched_page(browser, (runs["clips"] / "report.html").as_uri()) as page:
        yield page


def pixels_of(png: bytes) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(np.int64)


def test_the_pages_say_what_the_images_are(runs: dict[str, Path]) -> None:
    assert "4 frames of 16 px, colour, 8 bits" in text_of(runs["clips"])
    assert "4 slices of 16 px, grey, 16 bits" in text_of(runs["volumes"])
    assert "16 px, 5 channels, floats from -1024 to 3071" in text_of(runs["many"])
    assert "tH1: changes between neighbouring frames" in text_of(runs["clips"])
    assert "tL: averages of 2 slices" in text_of(runs["volumes"])
    assert "<script" not in text_of(runs["clips"])  # clips play, and stop, without


@pytest.mark.parametrize("name", ["clips", "volumes", "many"])
def test_all_pictures_are_in_the_page_and_it_is_small(runs: dict[str, Path], name: str) -> None:
    text = text_of(runs[name])
    for path in (runs[name] / "report").iterdir():
        assert base64.b64encode(path.read_bytes()).decode() in text, path
    assert len(text) < 1_000_000


def test_a_grid_plays_frame_by_frame(clip_page: Page, runs: dict[str, Path]) -> None:
    grid = clip_page.get_by_alt_text("Real, 4 frames")
    strip = np.asarray(Image.open(runs["clips"] / "report" / "images-real.webp").convert("RGB")).astype(int)
    assert strip.shape == (FRAMES * GRID, GRID, 3)
    grid.evaluate(f"(image) => {{ image.style.width = '{GRID}px'; image.style.borderRadius = 0; }}")
    for frame in range(FRAMES):
        clip_page.evaluate(FREEZE, 125 * frame + 60)
        shown = pixels_of(grid.screenshot())[:GRID, :GRID]
        differences = [np.abs(shown - strip[other * GRID : (other + 1) * GRID]).mean() for other in range(FRAMES)]
        assert int(np.argmin(differences)) == frame
        assert differences[frame] < 1


def test_clips_are_still_where_less_motion_is_wanted_and_play_when_asked(clip_page: Page) -> None:
    assert set(clip_page.evaluate(STATES)) == {"paused"}  # the browser of the tests wants less motion
    box = clip_page.get_by_label("Play the clips")
    box.focus()
    clip_page.keyboard.press("Space")
    assert set(clip_page.evaluate(STATES)) == {"running"}
    clip_page.emulate_media(reduced_motion="no-preference")
    expect(clip_page.get_by_label("Pause the clips")).to_be_checked()
    assert set(clip_page.evaluate(STATES)) == {"paused"}
    clip_page.keyboard.press("Space")
    assert set(clip_page.evaluate(STATES)) == {"running"}


def level_at(page: Page, label: str) -> list[int]:
    """The grey of all pixels of a canvas, row by row."""
    values = page.get_by_label(label).evaluate(
        "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"
    )
    return [int(value) for value in values[::4]]


def test_volumes_are_seen_through_a_window(browser: Browser, runs: dict[str, Path]) -> None:
    url = (runs["volumes"] / "report.html").as_uri()
    with watched_page(browser, url, allowed=("willReadFrequently",)) as page:  # the test reads pixels, no page does
        label = "Real, through the window"
        expect(page.get_by_label(label)).to_be_visible()
        expect(page.get_by_alt_text("Real, 4 slices")).to_be_hidden()
        strip = np.asarray(Image.open(runs["volumes"] / "report" / "images-real.webp").convert("L")).astype(int)
        for number in (1, 3):
            page.get_by_label("Slice").fill(str(number))
            assert (
                np.abs(
                    np.array(level_at(page, label)).reshape(GRID, GRID) - strip[(number - 1) * GRID : number * GRID]
                ).max()
                <= 1
            )
        page.get_by_label("Centre").first.fill("30000")
        page.get_by_label("Width").first.fill("2")
        levels = level_at(page, label)
        assert len(set(levels)) == 2  # nothing lies in so narrow a window
        whole = strip[2 * GRID :][:GRID].reshape(-1)
        assert all(
            (level > 0) == (value * 257 > 30000)
            for level, value in zip(levels, whole, strict=True)
            if abs(value * 257 - 30000) > 300
        )
        page.get_by_role("button", name="All values").click()
        assert page.get_by_label("Width").first.input_value() == "65535"
        assert np.abs(np.array(level_at(page, label)) - whole).max() <= 1
        page.get_by_role("button", name="Fit to the values").click()
        values = np.sort(strip[strip < 255]) * 257
        centre, spread = (float(page.get_by_label(name).first.input_value()) for name in ("Centre", "Width"))
        for place, end in ((0.01, centre - spread / 2), (0.99, centre + spread / 2)):
            assert abs(values[round(place * (len(values) - 1))] - end) < 1500


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("clips", NARROW, "dark"), ("volumes", NARROW, "light"), ("many", WIDE, "dark")]
)
def test_the_pages_fit_and_are_accessible(
    browser: Browser, runs: dict[str, Path], name: str, width: int, scheme: Scheme
) -> None:
    with watched_page(browser, (runs[name] / "report.html").as_uri(), width, scheme) as page:
        check_fits(page)
        check_accessible(page)
