"""The page of the service with models of clips, of volumes and of many channels, in a real browser."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

from cluster.serving.application import create_application
from cluster.serving.batch import ImagesTask, run_batch
from cluster.serving.bodies import ImagesBody
from cluster.serving.hosted_model import HostedModel, load_model
from cluster.serving.limits import Limits
from cluster.serving.model_source import ModelSource
from launch.pages import STATIC
from tests.support.browser import NARROW, browser, check_accessible, check_fits, watched_page
from tests.support.clip_runs import (
    FRAMES,
    RANGE,
    write_runs,
)
from tests.support.serving import LocalBackend, running

__all__ = ["browser"]

LIMITS = Limits(evaluations=10, pixels=64 * 64, seconds=20.0)
FIRST = 12
READS = ("willReadFrequently",)
"""What Chromium says of a test that reads a canvas again and again; no page does."""
PIXELS = "(canvas) => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data]"


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostedModel]:
    """A model of clips, one of volumes and one of images of many channels."""
    folder = tmp_path_factory.mktemp("models")
    runs = write_runs(folder)
    return {name: load_model(ModelSource(str(run)).newest()) for name, run in runs.items()}


@contextmanager
def gallery(browser: Browser, hosted: HostedModel, place: str = "", **how: Any) -> Iterator[Page]:
    """The page of a service of the model."""
    application = create_application(LocalBackend(hosted, LIMITS), LIMITS, static=STATIC)
    with running(application) as url, watched_page(browser, f"{url}{place}", allowed=READS, **how) as page:
        yield page


def frames_of(hosted: HostedModel, **fields: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers of an image as the service gives them: of clips (T, H, W, C)."""
    (answer,) = run_batch(hosted, [ImagesTask(ImagesBody.model_validate(fields | {"format": "npy"}))])
    assert hasattr(answer, "body"), answer
    return np.asarray(np.load(io.BytesIO(answer.body)), np.float64)


def opened(page: Page, number: int) -> Locator:
    """The dialog of a picture, with its layers."""
    expect(page.locator(".picture img")).to_have_count(FIRST)
    page.locator("button.frame").nth(number).click()
    expect(page.locator("dialog canvas.large")).to_be_visible()
    return page.locator("dialog")


def canvas_of(dialog: Locator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The pixels (H, W, 3) of the large picture."""
    canvas = dialog.locator("canvas.large")
    height, width = (int(canvas.get_attribute(side) or 0) for side in ("height", "width"))
    return np.array(canvas.evaluate(PIXELS)).reshape(height, width, 4)[..., :3]


def test_clips_are_still_until_they_are_to_play(browser: Browser, hosted: dict[str, HostedModel]) -> None:
    with gallery(browser, hosted["clips"]) as page:
        clip = page.get_by_alt_text("Clip of seed 3", exact=True)
        expect(clip).to_be_visible()
        expect(page.locator(".picture img")).to_have_count(FIRST)
        source = clip.get_attribute("data-clip")
        assert source
        still = clip.get_attribute("src")
        assert still != source  # the browser of the tests wants less motion
        page.get_by_role("button", name="Play the clips").click()
        expect(clip).to_have_attribute("src", source)
        page.get_by_role("button", name="Pause the clips").click()
        expect(clip).not_to_have_attribute("src", source)
        page.get_by_role("button", name="Play the clips").click()
        dialog = opened(page, 3)
        slider = dialog.get_by_label("Frame")
        seen = set()
        for _ in range(200):
            seen.add(slider.input_value())
            page.wait_for_timeout(20)
            if len(seen) == FRAMES:
                break
        assert seen == {str(number) for number in range(1, FRAMES + 1)}


def test_bands_of_motion_are_weighed_and_drawn_anew(browser: Browser, hosted: dict[str, HostedModel]) -> None:
    model = hosted["clips"]
    with gallery(browser, model) as page:
        dialog = opened(page, 4)
        for number, frame in enumerate(frames_of(model, seed=4), 1):
            dialog.get_by_label("Frame").fill(str(number))
            assert np.abs(canvas_of(dialog) - frame).max() <= 2
        dialog.get_by_label("Gain of tH1, all of its bands, changes").press("Home")
        expect(dialog.locator("pre").first).to_contain_text('"gains":{"tH1":0}')
        still = frames_of(model, seed=4, gains={"tH1": 0.0})
        assert np.abs(canvas_of(dialog) - still[-1]).max() <= 2
        assert np.abs(still[-1] - still[-2]).max() <= 1
        dialog.get_by_role("button", name="As it was drawn").click()
        dialog.get_by_role("button", name="Draw tH1 anew").click()
        expect(dialog.get_by_role("status")).to_have_text("tH1 drawn anew.")
        redrawn = frames_of(model, seed=4, resample=["tH1"], resample_seed=5)
        assert np.abs(canvas_of(dialog) - redrawn[-1]).max() <= 2
        with page.expect_download() as download:
            dialog.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "seed-4.webp"
        with Image.open(download.value.path()) as animation:
            assert animation.format == "WEBP"
        assert dialog.get_by_role("button", name="Its bands").count() == 0


def test_the_motion_of_one_clip_is_given_to_another(browser: Browser, hosted: dict[str, HostedModel]) -> None:
    with gallery(browser, hosted["clips"]) as page:
        expect(page.locator(".picture img")).to_have_count(FIRST)
        for seed in (3, 8):
            page.get_by_role("button", name=f"Pin Clip of seed {seed}", exact=True).click()
        between = page.get_by_role("region", name="Between two pictures")
        between.get_by_role("button", name="Picture of A, detail of B").click()
        between.get_by_label("Detail of B from level").select_option("motion alone")
        expect(between.get_by_alt_text("Clip with the picture of seed 3 and the motion of seed 8")).to_be_visible()
        expect(between.locator("pre").first).to_contain_text('"at":"time"')
        expect(between.locator("pre").last).to_contain_text("--mix 3 8 --at time")


@pytest.mark.parametrize(("name", "noun"), [("volumes", "Volume"), ("many", "Image")])
def test_values_are_seen_through_a_window(
    browser: Browser, hosted: dict[str, HostedModel], name: str, noun: str
) -> None:
    model = hosted[name]
    with gallery(browser, model) as page:
        expect(page.get_by_alt_text(f"{noun} of seed 2", exact=True)).to_be_visible()
        dialog = opened(page, 2)
        values = frames_of(model, seed=2)
        shown = np.repeat(values[0], 3, axis=2) if name == "volumes" else values[..., [4, 2, 0]]
        least, greatest = (0.0, 65535.0) if name == "volumes" else RANGE
        for centre, width in (((least + greatest) / 2, greatest - least), (least + 0.4 * (greatest - least), 1500.0)):
            dialog.get_by_label("Centre of the window").fill(str(centre))
            dialog.get_by_label("Width of the window").fill(str(width))
            wanted = ((shown - centre + width / 2) / width * 255).clip(0, 255)
            # Layers have 11 bits, and their sum an error of some of the last.
            assert np.abs(canvas_of(dialog) - wanted).max() <= 1 + 255 * (greatest - least) / width / 500
        with page.expect_download() as download:
            dialog.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "seed-2.npy"
        assert np.abs(np.load(download.value.path()) - values).max() <= 1e-3 * (greatest - least)


def test_what_has_no_meaning_is_said_and_not_offered(browser: Browser, hosted: dict[str, HostedModel]) -> None:
    with gallery(browser, hosted["clips"], "#upload") as page:
        expect(page.get_by_text("This model makes clips of 4 frames with 3 channels of 8 bits")).to_be_visible()
        expect(page.get_by_role("button", name="Restyle")).to_be_visible()
        for name in ("Enlarge", "Edit bands"):
            assert page.get_by_role("button", name=name).count() == 0


@pytest.mark.parametrize("name", ["clips", "volumes"])
def test_the_page_fits_a_telephone_and_is_accessible(
    browser: Browser, hosted: dict[str, HostedModel], name: str
) -> None:
    with gallery(browser, hosted[name], width=NARROW, scheme="dark") as page:
        expect(page.locator(".picture img")).to_have_count(FIRST)
        check_fits(page)
        check_accessible(page)
        sheet = opened(page, 1).locator(".sheet")
        assert sheet.evaluate("(element) => element.scrollWidth <= element.clientWidth")
        check_accessible(page)
