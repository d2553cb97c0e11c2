"""The page of the service in a real browser: drawing, weighing, redrawing, moving between two, uploads, the token."""

from __future__ import annotations

import base64
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from cluster.serving.application import create_application
from cluster.serving.batch import ImagesTask, run_batch
from cluster.serving.bodies import ImagesBody
from cluster.serving.hosted_model import HostedModel, load_model
from cluster.serving.limits import Limits
from cluster.serving.model_source import ModelSource
from launch.pages import STATIC
from tests.support.browser import NARROW, PATIENCE_MS, WIDE, Scheme, browser, check_accessible, check_fits, watched_page
from tests.support.commands import run_command
from tests.support.serving import FLOWS, LocalBackend, pixels_of, png_of, running, small_run

__all__ = ["browser"]

LIMITS = Limits(evaluations=10, pixels=64 * 64, seconds=20.0)
TOKEN = "0123456789abcdef"
FIRST = 12
"""Pictures that the page asks for at once."""
DATA_URL = """async (element) => {
    await element.decode?.();  // an image may have its URL and no pixels yet
    const canvas = document.createElement("canvas");
    canvas.width = element.naturalWidth || element.width;
    canvas.height = element.naturalHeight || element.height;
    canvas.getContext("2d").drawImage(element, 0, 0);
    return canvas.toDataURL();
}"""
DROP = """(element, data) => {
    const files = new DataTransfer();
    files.items.add(new File([Uint8Array.from(data)], "dropped.png", { type: "image/png" }));
    element.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }));
}"""
IN_DIALOG = """() => {
    const focused = document.activeElement;
    return focused === document.body || focused.closest("dialog") !== null;
}"""
FOCUS_RING = "() => getComputedStyle(document.activeElement).outlineStyle"


@pytest.fixture(scope="module")
def run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("gallery") / "run"
    return small_run(folder, small_shards, max_steps=2, levels=2, **FLOWS)


@pytest.fixture(scope="module")
def hosted(run: str) -> HostedModel:
    return load_model(ModelSource(run).newest())


@pytest.fixture(scope="module")
def url(hosted: HostedModel) -> Iterator[str]:
    with running(create_application(LocalBackend(hosted, LIMITS), LIMITS, static=STATIC)) as address:
        yield address


def shown(picture: Locator) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The pixels (H, W, 3) of an image or a canvas."""
    png = base64.b64decode(str(picture.evaluate(DATA_URL)).partition(",")[2])
    return pixels_of(png)[..., :3]


def image_of(hosted: HostedModel, **fields: Any) -> bytes:
    (answer,) = run_batch(hosted, [ImagesTask(ImagesBody.model_validate(fields))])
    assert hasattr(answer, "body"), answer
    return bytes(answer.body)


def furthest(picture: Locator, png: bytes) -> int:
    return int(np.abs(shown(picture) - pixels_of(png)).max())


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until it holds: for what no attribute of the page tells."""
    deadline_s = time.monotonic() + PATIENCE_MS / 1000
    while not holds():
        assert time.monotonic() < deadline_s
        page.wait_for_timeout(50)


def pictures(page: Page) -> Locator:
    return page.locator(".picture img")


def drawn(page: Page, count: int = FIRST) -> Page:
    expect(pictures(page)).to_have_count(count)
    return page


def opened(page: Page, number: int) -> Locator:
    """The dialog of a picture of the gallery, with its layers."""
    drawn(page).locator("button.frame").nth(number).click()
    expect(page.locator("dialog canvas.large")).to_be_visible()
    return page.locator("dialog")


def test_pictures_appear_and_are_those_of_their_seeds(browser: Browser, url: str, hosted: HostedModel) -> None:
    with watched_page(browser, url) as page:
        drawn(page)
        for number in (0, 7):
            assert (
                furthest(page.get_by_alt_text(f"Image of seed {number}", exact=True), image_of(hosted, seed=number))
                <= 1
            )
        page.get_by_label("First seed").fill("100")
        page.get_by_label("Class", exact=True).select_option("ramps")
        page.get_by_label("Variety").fill("0.5")
        page.get_by_role("button", name="Draw").click()
        asked = image_of(hosted, seed=103, **{"class": "ramps"}, truncation=0.5)
        expect(page.get_by_alt_text("Image of seed 103, class ramps")).to_be_visible()
        assert furthest(page.get_by_alt_text("Image of seed 103, class ramps"), asked) <= 1
        page.get_by_role("button", name="More").click()
        drawn(page, 2 * FIRST)
        expect(page.get_by_alt_text("Image of seed 123, class ramps")).to_be_visible()


def test_what_the_service_refuses_is_said_beside_the_field(browser: Browser, url: str) -> None:
    with watched_page(browser, url, allowed=("422",)) as page:
        drawn(page)
        page.get_by_text("How flow experts generate").click()
        page.get_by_label("Evaluations").fill("12")
        page.get_by_role("button", name="Draw").click()
        expect(page.get_by_role("alert")).to_have_text("Evaluations is 12, and 10 are the most: ask for fewer.")
        drawn(page)  # those of before
        expect(page.get_by_label("Evaluations")).to_have_attribute("aria-invalid", "true")
        expect(page.get_by_label("Evaluations")).to_be_focused()
        page.get_by_label("Evaluations").fill("4")
        page.keyboard.press("Enter")
        drawn(page)
        expect(page.get_by_role("alert")).to_be_hidden()


def test_gains_and_redrawn_bands_change_the_picture_as_the_service_does(
    browser: Browser, url: str, hosted: HostedModel, tmp_path: Path
) -> None:
    with watched_page(browser, url) as page:
        dialog = opened(page, 4)
        canvas = dialog.locator("canvas.large")
        assert furthest(canvas, image_of(hosted, seed=4)) <= 1
        dialog.get_by_label("Gain of HL1, vertical edges").press("End")
        dialog.get_by_label("Gain of LL2, the coarse picture").press("ArrowLeft")
        gains = {"HL1": 3, "LL2": 0.95}
        assert furthest(canvas, image_of(hosted, seed=4, gains=gains)) <= 1
        dialog.get_by_role("button", name="Draw HH2 anew").click()
        expect(dialog.get_by_role("status")).to_have_text("HH2 drawn anew.")
        once = image_of(hosted, seed=4, gains=gains, resample=["HH2"], resample_seed=5)
        assert furthest(canvas, once) <= 1
        assert np.abs(pixels_of(once) - pixels_of(image_of(hosted, seed=4, gains=gains))).max() > 1
        expect(dialog.get_by_role("button", name="Pin Image of seed 4")).to_be_disabled()
        dialog.get_by_role("button", name="Draw HH2 anew").click()
        dialog.get_by_role("button", name="Draw LL2 anew").click()
        expect(dialog.get_by_role("status")).to_have_text("HH2, LL2 drawn anew.")
        twice = image_of(hosted, seed=4, gains=gains, resample=["HH2", "LL2"], resample_seed=6)
        assert furthest(canvas, twice) <= 1
        assert np.abs(pixels_of(twice) - pixels_of(once)).max() > 1
        with page.expect_download() as download:
            dialog.get_by_role("button", name="Download").click()
        assert download.value.suggested_filename == "seed-4.png"
        assert Path(download.value.path()).read_bytes() == twice
        dialog.get_by_role("button", name="As it was drawn").click()
        expect(dialog.get_by_label("Gain of HL1, vertical edges")).to_have_value("1")
        expect(dialog.get_by_role("button", name="As it was drawn")).to_be_disabled()
        expect(dialog.get_by_role("button", name="Draw HH2 anew")).to_be_enabled()
        assert furthest(canvas, image_of(hosted, seed=4)) <= 1


def test_the_mosaic_is_that_of_the_picture(browser: Browser, url: str) -> None:
    with watched_page(browser, url) as page:
        dialog = opened(page, 2)
        dialog.get_by_role("button", name="Its bands").click()
        mosaic = dialog.get_by_alt_text("The bands of the picture: LL2, HL2, LH2, HH2, HL1, LH1, HH1")
        expect(mosaic).to_be_visible()
        before = shown(mosaic)
        dialog.get_by_label("Gain of HH1, diagonals, corners").press("Home")
        expect(dialog.locator("pre").first).to_contain_text('"gains":{"HH1":0}')
        half = len(before) // 2
        until(page, lambda: np.abs(shown(mosaic) - before)[half + 20 :, half + 20 :].max() > 100)  # HH1 is grey now
        after = shown(mosaic)
        assert np.abs(after - before)[:half, :half].max() <= 30  # the others are as they were, to roundings of pixels


def test_the_commands_shown_make_the_same_picture(
    browser: Browser, url: str, hosted: HostedModel, run: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with watched_page(browser, url) as page:
        drawn(page)
        page.get_by_label("Class", exact=True).select_option("edges")
        page.get_by_role("button", name="Draw").click()
        expect(page.get_by_alt_text("Image of seed 11, class edges")).to_be_visible()
        dialog = opened(page, 5)
        dialog.get_by_text("The command that makes this picture").click()
        plain = dialog.locator("pre").all_inner_texts()
        dialog.get_by_label("Gain of HL1, vertical edges").press("End")
        dialog.get_by_role("button", name="Draw HH1 anew").click()
        expect(dialog.locator("pre").first).to_contain_text("resample")
        edited = dialog.locator("pre").all_inner_texts()
        canvas = shown(dialog.locator("canvas.large"))
    wanted = pixels_of(image_of(hosted, seed=5, **{"class": "edges"}))
    # The service runs in this process: curl, another one, asks it as anybody would.
    with running(create_application(LocalBackend(hosted, LIMITS), LIMITS)) as address:
        for (service, _), pixels in ((plain, wanted), (edited, canvas)):
            words = shlex.split(service.replace(url, address))
            subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=60)
            assert np.abs(pixels_of((tmp_path / "seed-5-edges.png").read_bytes()) - pixels).max() <= 1
    for (_, local), pixels, name in ((plain, wanted, "00000.png"), (edited, canvas, "00000-after.png")):
        words = shlex.split(local.replace("MODEL", run).replace("--out pictures", f"--out {tmp_path / name[:-4]}"))
        assert run_command(capsys, *words[1:]).code == 0, local
        assert np.abs(pixels_of(next((tmp_path / name[:-4]).glob(f"*{name}")).read_bytes()) - pixels).max() <= 1


def test_between_two_pins_lie_pictures_on_the_way_and_mixtures(browser: Browser, url: str, hosted: HostedModel) -> None:
    with watched_page(browser, url) as page:
        drawn(page)
        page.get_by_role("button", name="Pin Image of seed 3", exact=True).click()
        between = page.get_by_role("region", name="Between two pictures")
        expect(between).to_contain_text("Pin one more picture")
        page.get_by_role("button", name="Pin Image of seed 8", exact=True).click()
        way = {"first": 3, "second": 8, "share": 0.5}
        middle = between.get_by_alt_text("Image 50 percent of the way from seed 3 to seed 8")
        expect(middle).to_be_visible()
        assert furthest(middle, image_of(hosted, interpolate=way)) <= 1
        slider = between.get_by_label("From A to B")
        slider.press("ArrowRight")
        nearer = between.get_by_alt_text("Image 56 percent of the way from seed 3 to seed 8")
        expect(nearer).to_be_visible()
        assert furthest(nearer, image_of(hosted, interpolate=way | {"share": 0.5625})) <= 1
        slider.press("Home")
        first = between.get_by_alt_text("Image 0 percent of the way from seed 3 to seed 8")
        expect(first).to_be_visible()
        assert furthest(first, image_of(hosted, seed=3)) <= 1
        between.get_by_role("button", name="Picture of A, detail of B").click()
        between.get_by_label("Detail of B from level").select_option("2")
        mixed = between.get_by_alt_text("Image with the picture of seed 3 and the detail of seed 8")
        expect(mixed).to_be_visible()
        expect(between.locator("pre").first).to_contain_text('"at":2')
        wanted = image_of(hosted, mix={"coarse": 3, "fine": 8, "at": 2})
        until(page, lambda: furthest(mixed, wanted) <= 1)
        between.get_by_role("button", name="Unpin").first.click()
        expect(between).to_contain_text("Pin one more picture")


def test_an_image_of_ones_own_is_enlarged_edited_restyled_and_taken_apart(browser: Browser, url: str) -> None:
    photo = {"name": "photo.png", "mimeType": "image/png", "buffer": png_of(40, 30)}
    style = photo | {"name": "style.png", "buffer": png_of(32, 32, seed=1)}
    with watched_page(browser, f"{url}#upload") as page:
        result = page.locator(".result")
        page.get_by_label("Your image", exact=True).last.set_input_files(photo)  # type: ignore[arg-type]
        enlarged = result.get_by_alt_text("The image, enlarged by the model")
        expect(enlarged).to_be_visible()
        assert shown(enlarged).shape == (16, 16, 3)
        result.get_by_label("From before to after").press("Home")
        assert enlarged.evaluate("(image) => getComputedStyle(image).clipPath") == "inset(0px 0px 0px 0%)"
        page.get_by_label("Seed of the detail").fill("5")
        before = shown(enlarged)
        page.keyboard.press("Tab")
        until(page, lambda: np.abs(shown(enlarged) - before).max() > 0)
        page.get_by_role("button", name="Edit bands").click()
        expect(result).to_be_hidden()
        page.get_by_label("Gain of HL1, vertical edges").press("Home")
        expect(result.get_by_alt_text("Your image with its bands weighed or drawn anew")).to_be_visible()
        page.get_by_role("button", name="Restyle").click()
        expect(result).to_be_hidden()
        page.get_by_label("The style", exact=True).set_input_files(style)  # type: ignore[arg-type]
        styled = result.get_by_alt_text("Your image in the style of the other")
        expect(styled).to_be_visible()
        assert shown(styled).shape == (30, 40, 3)
        page.get_by_role("button", name="Take apart").click()
        expect(result.get_by_alt_text("A mosaic of the bands of your image")).to_be_visible()
        result.get_by_text("The command that makes this picture").click()
        expect(result.locator("pre")).to_contain_text("-F image=@photo.png -F transform=dwt:haar -F levels=3")


def test_dropped_files_are_taken_and_wrong_ones_refused(browser: Browser, url: str) -> None:
    with watched_page(browser, f"{url}#upload", allowed=("400", "422")) as page:
        page.locator(".drop").evaluate(DROP, list(png_of(16, 16)))
        expect(page.locator(".result").get_by_alt_text("The image, enlarged by the model")).to_be_visible()
        page.locator(".drop").evaluate(DROP, list(png_of(16, 16)[:100]))
        expect(page.get_by_role("alert")).to_contain_text("damaged or cut off")
        expect(page.locator(".result")).to_be_hidden()
        page.locator(".drop").evaluate(DROP, list(png_of(100, 90)))  # more pixels than the service takes
        expect(page.locator(".result").get_by_alt_text("The image, enlarged by the model")).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("Your image was reduced before it was sent.")


def test_an_example_is_sent_and_named_in_the_commands(
    browser: Browser, small_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown_features = {"kinds": ["class", "features"], "features_length": 4}
    run = small_run(tmp_path / "run", small_shards, max_steps=2, conditioning=shown_features)
    model, example = load_model(ModelSource(run).newest()), tmp_path / "like.png"
    example.write_bytes(png_of(30, 30))
    application = create_application(LocalBackend(model, LIMITS), LIMITS, static=STATIC)
    with running(application) as address, watched_page(browser, address) as page:
        drawn(page).get_by_label("An example", exact=True).set_input_files(example)
        picture = page.get_by_alt_text("Image of seed 3, like like.png")
        expect(picture).to_be_visible()
        wanted = image_of(model, seed=3, like=base64.b64encode(example.read_bytes()).decode())
        assert furthest(picture, wanted) <= 1
        assert np.abs(pixels_of(wanted) - pixels_of(image_of(model, seed=3))).max() > 1
        drawn(page)
        dialog = opened(page, 3)
        dialog.get_by_text("The command that makes this picture").click()
        service, local = dialog.locator("pre").all_inner_texts()
        subprocess.run(["bash", "-c", service], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    assert np.abs(pixels_of((tmp_path / "seed-3.png").read_bytes()) - pixels_of(wanted)).max() <= 1
    local = local.replace("MODEL", run).replace("like.png", str(example)).replace("pictures", str(tmp_path))
    words = shlex.split(local)
    assert run_command(capsys, *words[1:]).code == 0, local
    assert np.abs(pixels_of((tmp_path / "00000.png").read_bytes()) - pixels_of(wanted)).max() <= 1


def test_the_keyboard_is_enough(browser: Browser, url: str) -> None:
    with watched_page(browser, url) as page:
        drawn(page)
        page.keyboard.press("Tab")
        expect(page.get_by_text("Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main")).to_be_focused()
        page.keyboard.press("Tab")
        expect(page.get_by_label("First seed")).to_be_focused()
        assert page.evaluate(FOCUS_RING) == "solid"
        page.keyboard.type("70")
        page.keyboard.press("Enter")
        expect(page.get_by_alt_text("Image of seed 70", exact=True)).to_be_visible()
        drawn(page)
        picture = page.locator("button.frame").first
        while not picture.evaluate("(element) => element === document.activeElement"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        expect(dialog).to_be_visible()
        for _ in range(30):
            page.keyboard.press("Tab")
            assert page.evaluate(IN_DIALOG)
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(picture).to_be_focused()
        page.keyboard.press("Enter")
        expect(dialog).to_be_visible()
        page.go_back()
        expect(dialog).to_have_count(0)
        drawn(page)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (NARROW, "dark"),
        (WIDE, "light"),
        pytest.param(NARROW, "light", marks=pytest.mark.long),
        pytest.param(WIDE, "dark", marks=pytest.mark.long),
    ],
)
def test_the_page_fits_narrow_and_wide_windows(browser: Browser, url: str, width: int, scheme: Scheme) -> None:
    with watched_page(browser, url, width, scheme) as page:
        drawn(page)
        for number in (0, 3):
            page.locator(".picture .pin").nth(number).click()
        expect(page.locator(".middle img[src]")).to_be_visible()
        check_fits(page)
        check_accessible(page)
        sheet = opened(page, 1).locator(".sheet")
        assert sheet.evaluate("(element) => element.scrollWidth <= element.clientWidth")
        check_accessible(page)
        page.keyboard.press("Escape")
        page.get_by_role("link", name="Your image").click()
        for name in ("Edit bands", "Restyle", "Take apart"):
            page.get_by_role("button", name=name).click()
            check_fits(page)
        check_accessible(page)
        paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", str(paper)))) < 150) == (scheme == "dark")


def test_the_token_is_asked_for_and_sent(browser: Browser, hosted: HostedModel) -> None:
    application = create_application(LocalBackend(hosted, LIMITS), LIMITS, token=TOKEN, static=STATIC)
    with running(application) as address, watched_page(browser, address, allowed=("401",)) as page:
        page.get_by_label("Token").fill("another-token-than-it")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("alert")).to_have_text("The service has another token than this one.")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        dialog = opened(page, 0)
        expect(dialog.locator("pre").first).to_contain_text('-H "Authorization: Bearer $FREQGAN_TOKEN"')
        assert TOKEN not in page.content()
        assert TOKEN not in page.url


def test_a_newer_version_is_named_once_it_answers(
    browser: Browser, hosted: HostedModel, small_shards: Path, tmp_path: Path
) -> None:
    backend = LocalBackend(hosted, LIMITS)
    newer = small_run(tmp_path / "run", small_shards, max_steps=4, levels=2, **FLOWS)
    application = create_application(backend, LIMITS, static=STATIC)
    with running(application) as address, watched_page(browser, address) as page:
        drawn(page)
        expect(page.locator("#model")).to_contain_text("step 2")
        backend.hosted = load_model(ModelSource(newer).newest())
        page.get_by_role("button", name="More").click()
        drawn(page, 2 * FIRST)
        expect(page.locator("#model")).to_contain_text("step 4")


@pytest.mark.long
def test_a_service_that_has_gone_is_named_and_asked_again(browser: Browser, hosted: HostedModel) -> None:
    application = create_application(LocalBackend(hosted, LIMITS), LIMITS, static=STATIC)
    with running(application) as address, watched_page(browser, address, allowed=("ERR_FAILED",)) as page:
        drawn(page)
        page.route("**/v1/**", lambda route: route.abort())
        page.get_by_role("button", name="More").click()
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer")
        page.unroute("**/v1/**")
        page.get_by_role("button", name="Draw").click()
        drawn(page)
        expect(page.get_by_role("alert")).to_be_hidden()
