"""``freqgan watch`` in a real browser, of a run that is trained meanwhile by a process of its own."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from cluster.execution.failure_policy import Recovery
from launch.live.application import watch_application
from launch.live.run_view import RunView
from launch.pages import STATIC
from launch.run_folder.failures import FAILURES, FailureLog
from tests.support.browser import NARROW, check_fits, watched_page
from tests.support.commands import ROOT, command_line
from tests.support.live_runs import train_with_folder
from tests.support.mixtures import FLOW_OVERRIDES
from tests.support.serving import running

PATIENCE_S = 60
TOKEN = "0123456789abcdef"
STAGES = ["LL1", "HL1", "LH1", "HH1", "image"]


@pytest.fixture(scope="module")
def run(small_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that is being trained, with a checkpoint every eighth step."""
    folder = tmp_path_factory.mktemp("page") / "cats & <b>dogs</b>"
    settings = (f"data={small_shards}", f"run={folder}", "images=1_000_000", "checkpoint_every=8")
    with subprocess.Popen(
        command_line("train", "smoke", *settings), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_for(lambda: list(folder.glob("samples/*.png")) or process.poll() is not None)
            assert process.poll() is None
            yield folder
        finally:
            process.kill()


@pytest.fixture(scope="module")
def address(run: Path) -> Iterator[str]:
    """Where the command shows it; SIGTERM ends it with 0."""
    with subprocess.Popen(
        command_line("watch", run, "--port", 0),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield found[0]
        process.send_signal(signal.SIGTERM)
        out, said = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, out) == (0, f"{run} is not shown any more\n"), said
        assert "GET / 200" in said
        assert "GET /run/" not in said
        assert "Traceback" not in said


def wait_for(there: Callable[[], object]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while not there():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def polled_until(page: Page, there: Callable[[], bool]) -> None:
    """Has the page look anew, as it does of itself every few seconds, until something is there."""

    def look() -> bool:
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        page.wait_for_timeout(100)
        return there()

    wait_for(look)


def progress(page: Page) -> int:
    """How many images the page says are seen."""
    text = page.get_by_role("progressbar", name="Images seen").get_attribute("aria-valuetext")
    return int((text or "0").partition(" ")[0].replace(",", ""))


def test_the_page_follows_a_training(browser: Browser, address: str, run: Path) -> None:
    with watched_page(browser, address) as page:
        slider = page.get_by_role("slider", name="Checkpoint of the samples")
        picture = page.locator(".grid-picture")
        expect(picture).to_be_visible()
        assert page.get_by_role("heading", level=1).text_content() == run.name
        expect(page.get_by_role("status")).to_contain_text("Trains")
        assert page.locator(".stage-name").all_text_contents()[0].startswith("LL1")
        assert [text.split()[0] for text in page.locator(".stage-name").all_text_contents()] == STAGES
        for title in ("Losses of discriminators", "Losses of generators", "Alpha: share of the chain in the images"):
            expect(page.get_by_role("heading", name=title)).to_be_visible()
        check_fits(page)
        images, newest, source = progress(page), int(slider.get_attribute("max") or 0), picture.get_attribute("src")
        page.evaluate("window.scrollTo(0, 300)")
        polled_until(page, lambda: progress(page) > images and int(slider.get_attribute("max") or 0) > newest)
        assert slider.input_value() == slider.get_attribute("max")  # at its right end it follows
        polled_until(page, lambda: picture.get_attribute("src") != source)
        assert page.evaluate("window.scrollY") == 300
        check_keys(page)


def check_keys(page: Page) -> None:
    """The slider stays where it is put, and a chart says its values, by keys alone."""
    slider = page.get_by_role("slider", name="Checkpoint of the samples")
    slider.focus()
    page.keyboard.press("Home")
    expect(page.locator(".grid-caption strong")).to_have_text("64 images seen")
    count = int(slider.get_attribute("max") or 0)
    polled_until(page, lambda: int(slider.get_attribute("max") or 0) > count)
    assert slider.input_value() == "0"
    page.keyboard.press("ArrowRight")
    expect(page.locator(".grid-caption strong")).to_have_text("128 images seen")
    page.keyboard.press("End")
    assert slider.input_value() == slider.get_attribute("max")
    chart = page.get_by_role("img", name=re.compile("Losses of discriminators"))
    chart.focus()
    page.keyboard.press("End")
    expect(page.locator(".readout").first).to_be_visible()
    spoken = page.locator(".chart [aria-live]").first.text_content() or ""
    assert re.match(r"[\d,]+ images: LL1 [\d.]+, HL1 [\d.]+", spoken), spoken
    key = page.get_by_role("group", name="Lines of: Losses of discriminators").get_by_role("button").first
    key.focus()
    page.keyboard.press("Enter")
    expect(key).to_have_attribute("aria-pressed", "false")


def test_the_page_is_whole_on_a_telephone_and_in_the_dark(browser: Browser, address: str, run: Path) -> None:
    with watched_page(browser, address, NARROW, "dark") as page:
        expect(page.locator(".plot path.line").first).to_be_visible()
        page.get_by_text("Settings, as YAML").click()
        expect(page.get_by_label("Settings as YAML")).to_contain_text("checkpoint_every: 8")
        page.locator(".chart-table summary").first.click()
        expect(page.locator(".chart-table table").first.locator("tr").nth(3)).to_be_visible()  # is filled when opened
        page.get_by_role("button", name="Time").click()
        expect(page.locator(".plot").first).to_have_attribute("aria-label", re.compile("over (seconds|minutes)"))
        for slider in page.get_by_role("slider", name="Smoothing").all():
            slider.fill("0")
        check_fits(page)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(251, 251, 250)"
        unnamed = page.locator("img:not([alt]), svg[role=img]:not([aria-label])").count()
        assert unnamed == 0


def test_stages_that_exchange_nothing_wait_for_batches_alone(
    browser: Browser, small_shards: Path, tmp_path: Path
) -> None:
    run = train_with_folder(tmp_path / "flows", small_shards, *FLOW_OVERRIDES, "window=3")
    for file in [run / "config.yaml", *run.glob("checkpoints/*/*/manifest.json")]:  # as a run on Ray has them
        file.write_text(re.sub(r'("?executor"?: "?)inline', r"\1ray", file.read_text()))
    with running(watch_application(RunView(str(run)), STATIC)) as url, watched_page(browser, url) as page:
        stages = page.get_by_role("region", name="Stages")
        expect(stages).to_contain_text("at most 3 steps are in flight (window)")
        expect(stages).not_to_contain_text("for others")


def test_failures_and_images_left_out_have_cards_where_there_are_any(
    browser: Browser, trained: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    names = ("Failures got over", "Images left out")
    with running(watch_application(RunView(str(run)), STATIC)) as url, watched_page(browser, url) as page:
        expect(page.get_by_role("region", name="Checkpoints")).to_be_visible()
        for name in names:
            expect(page.get_by_role("region", name=name)).to_have_count(0)
    FailureLog(run / FAILURES).append(Recovery(4, ("LL1",), "its actor died", "replay", 3, 1, 2.5))
    with running(watch_application(RunView(str(run)), STATIC)) as url, watched_page(browser, url) as page:
        expect(page.get_by_role("region", name=names[0])).to_contain_text("LL1 died at step 4")
        expect(page.get_by_role("region", name=names[1])).to_have_count(0)


def test_a_token_is_asked_for(browser: Browser, trained: Path) -> None:
    with (
        running(watch_application(RunView(str(trained)), STATIC, token=TOKEN)) as url,
        watched_page(browser, url, allowed=("401",)) as page,
    ):
        page.get_by_label("Token").fill("another, of some length")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_contain_text("another token")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("status")).to_contain_text("Ended")
        expect(page.locator(".grid-picture")).to_be_visible()
