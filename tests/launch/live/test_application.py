"""The paths of the live view over HTTP: answers, errors in one form, tokens, and a page that asks no other host."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from launch.live.application import watch_application
from launch.live.run_view import RunView
from launch.pages import STATIC
from tests.support.serving import error_of

TOKEN = "0123456789abcdef"
Ask = Callable[..., httpx.Response]


def ask_of(run: object, token: str | None = None) -> Ask:
    """What sends one GET to an application of its own."""
    application = watch_application(RunView(str(run)), STATIC, token=token)

    def ask(path: str, method: str = "GET", **headers: str) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8001") as client:
                return await client.request(method, path, headers=headers)

        return asyncio.run(send())

    return ask


@pytest.fixture(scope="module")
def ask(trained: Path) -> Ask:
    return ask_of(trained)


def json_of(answer: httpx.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["cache-control"] == "no-store"
    values: dict[str, Any] = json.loads(answer.text)
    return values


def test_facts_curves_scores_settings_and_grids(ask: Ask, trained: Path) -> None:
    facts = json_of(ask("/run/facts"))
    assert facts["images"] == 48
    metrics = json_of(ask("/run/metrics"))
    assert metrics["components"][0]["steps"] == [1, 2, 3, 4, 5, 6]
    assert json_of(ask(f"/run/metrics?after={metrics['cursor']}"))["components"][0]["steps"] == [6]
    assert json_of(ask("/run/metrics?after=nothing"))["components"][0]["steps"] == [1, 2, 3, 4, 5, 6]
    assert json_of(ask("/run/scores")) == {"evaluations": [], "held_out": {}}
    assert json_of(ask("/run/settings"))["yaml"] == (trained / "config.yaml").read_text()
    grid = ask("/run/samples/000000024.png")
    assert (grid.status_code, grid.headers["content-type"]) == (200, "image/png")
    assert grid.content == (trained / "samples" / "000000024.png").read_bytes()
    assert ask("/run/facts", **{"Accept-Encoding": "gzip"}).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("path", "status", "part"),
    [
        ("/run/nothing", 404, "below /run/ there are GET facts, metrics"),
        ("/nothing", 404, "below /run/ there are GET facts, metrics"),
        ("/run/samples/000000025.png", 404, "ask for one that `samples` of /run/facts names"),
        ("/run/samples/..%2f..%2fconfig.yaml", 404, "there"),
        ("/run/samples/config.yaml", 404, "there is no such grid"),
        ("/run/samples/9999999999999999999999.png", 404, "there is no such grid"),
        ("/run/samples/-1.png", 404, "there is no such grid"),
        ("/run/metrics?after=" + "1" * 20_000, 422, "leave it out"),
        ("/static/../run_page.py", 404, "there is nothing at this path"),
    ],
)
def test_what_is_not_there_is_told_in_the_form_of_the_service(ask: Ask, path: str, status: int, part: str) -> None:
    answer = ask(path)
    assert answer.status_code == status
    assert part in error_of(answer)[0]


def test_other_methods_are_refused(ask: Ask) -> None:
    assert ask("/run/facts", "POST").status_code == 405
    assert "GET alone" in error_of(ask("/run/facts", "DELETE"))[0]


def test_a_token_is_asked_for_but_by_the_page_and_its_files(trained: Path) -> None:
    ask = ask_of(trained, TOKEN)
    for path in ("/run/facts", "/run/metrics", "/run/scores", "/run/settings", "/run/samples/000000024.png"):
        assert ask(path).status_code == 401, path
        assert ask(path, Authorization="Bearer another").status_code == 401, path
        assert ask(path, Authorization=f"Bearer {TOKEN}").status_code == 200, path
    for path in ("/", "/static/run.js", "/static/page.css"):
        assert ask(path).status_code == 200, path
    assert ask("/healthz").json() == {"status": "alive", "token": True}


def test_names_of_other_hosts_are_refused_without_a_token(ask: Ask) -> None:
    answer = ask("/run/facts", Host="attacker.example")
    assert answer.status_code == 403
    assert "answers to localhost alone" in error_of(answer)[0]


def test_the_page_loads_nothing_of_other_hosts(ask: Ask) -> None:
    page = ask("/")
    assert page.headers["content-security-policy"] == "default-src 'self'; img-src 'self' blob: data:"
    assert "http" not in page.text.replace("http-equiv", "")
    for script in ("run.js", "run_page.js", "chart.js", "run_curves.js", "run_samples.js", "run_stages.js", "run.css"):
        text = ask(f"/static/{script}").text
        assert "https://" not in text, script
        assert "http://" not in text.replace("http://www.w3.org/", ""), script
