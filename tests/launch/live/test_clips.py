"""The live view of a run of clips: grids that play, beside those that do not, and what the run is."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

from freqgan.errors import InputError
from launch.live.application import watch_application
from launch.live.run_view import RunView
from launch.pages import STATIC
from tests.support.browser import check_fits, watched_page
from tests.support.clip_runs import FRAMES, write_small_clips
from tests.support.live_runs import train_with_folder
from tests.support.mixtures import FLOW_OVERRIDES
from tests.support.serving import running


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with two grids."""
    folder = tmp_path_factory.mktemp("live")
    changes = (f"frames={FRAMES}", "time_levels=1", "noise.dimensions=64")
    return train_with_folder(folder / "run", write_small_clips(folder), *FLOW_OVERRIDES, *changes)


def test_a_run_of_clips_has_grids_that_play(run: Path) -> None:
    view = RunView(str(run))
    facts = view.facts()
    assert dict(facts["summary"])["clips"] == "4 frames of 16 px, colour, 8 bits"
    assert [one["plays"] for one in facts["samples"]] == [True, True]
    images = facts["samples"][-1]["images"]
    with (
        Image.open(io.BytesIO(view.sample(images, "webp"))) as clip,
        Image.open(io.BytesIO(view.sample(images))) as still,
    ):
        assert getattr(clip, "n_frames", 1) > 1
        assert clip.size == still.size
        clip.seek(FRAMES // 2)
        assert list(clip.convert("RGB").tobytes()) == list(still.convert("RGB").tobytes())


def test_a_grid_that_is_not_there_is_told(run: Path) -> None:
    with pytest.raises(InputError, match=r"has no samples/000000007\.webp"):
        RunView(str(run)).sample(7, "webp")


def test_the_grids_play_when_asked(browser: Browser, run: Path) -> None:
    with running(watch_application(RunView(str(run)), STATIC)) as url, watched_page(browser, url) as page:
        picture = page.locator(".grid-picture")
        expect(picture).to_be_visible()
        expect(picture).to_have_attribute(
            "alt", "Clips that the model draws after having seen 48: the same seeds in every grid"
        )
        source = picture.get_attribute("data-clip") or ""
        assert picture.get_attribute("src") != source  # the browser of the tests wants less motion
        page.get_by_role("button", name="Play the clips").click()
        expect(picture).to_have_attribute("src", source)
        page.get_by_role("slider", name="Checkpoint of the samples").press("Home")
        expect(picture).not_to_have_attribute("src", source)
        expect(picture).to_have_attribute("src", picture.get_attribute("data-clip") or "")
        page.get_by_role("button", name="Pause the clips").click()
        expect(picture).not_to_have_attribute("src", picture.get_attribute("data-clip") or "")
        check_fits(page)
