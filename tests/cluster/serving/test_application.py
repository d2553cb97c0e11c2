"""The HTTP application with a model in this process: paths, tokens, limits, errors in one form, counters."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cluster.serving.answers import Answer, Refusal
from cluster.serving.application import create_application
from cluster.serving.bodies import ImagesBody
from cluster.serving.hosted_model import HostedModel
from cluster.serving.limits import Limits
from cluster.serving.messages import BodyMemory, RefusedError
from cluster.serving.openapi import OPERATIONS
from cluster.serving.telemetry import PATHS
from tests.support.serving import LocalBackend, error_of, pixels_of, png_of

TOKEN = "0123456789abcdef"
LIMITS = Limits(count=8, evaluations=10, upload_bytes=20_000, body_bytes=1_000, pixels=64 * 64, queue=4, seconds=20.0)
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PART = b"--a\r\nContent-Disposition: form-data; "
FILE = ("image.png", png_of(16, 16), "image/png")

Ask = Callable[..., httpx.Response]


def ask_of(hosted: HostedModel, **how: Any) -> Ask:
    """What sends one request to an application of its own."""
    limits = how.pop("limits", LIMITS)
    application = create_application(LocalBackend(hosted, limits), limits, **how)

    def ask(method: str, path: str, **what: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
                return await client.request(method, path, **what)

        return asyncio.run(send())

    return ask


@pytest.fixture(scope="module")
def ask(gans: HostedModel) -> Ask:
    return ask_of(gans)


def test_an_image_comes_as_png_with_its_version_and_model(ask: Ask, gans: HostedModel) -> None:
    answer = ask("POST", "/v1/images", json={"seed": 3})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert (answer.headers["x-freqgan-version"], answer.headers["x-freqgan-model"]) == ("6", gans.digest)
    assert pixels_of(answer.content).shape == (16, 16, 3)
    assert answer.content == ask("POST", "/v1/images", json={"seed": 3}).content
    assert "access-control-allow-origin" not in answer.headers


def test_uploads_answer(ask: Ask) -> None:
    for path, files, fields in (
        ("/v1/super-resolve", {"image": FILE}, {}),
        ("/v1/edit", {"image": FILE}, {"gains": '{"HH1": 2}'}),
        ("/v1/style", {"content": FILE, "style": FILE}, {"levels": "1"}),
        ("/v1/decompose", {"image": FILE}, {"levels": "1"}),
    ):
        answer = ask("POST", path, files=files, data=fields)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png"), answer.text


def test_what_is_served_is_told(ask: Ask, gans: HostedModel) -> None:
    facts = ask("GET", "/v1/model").json()
    assert (facts["version"], facts["size"], facts["classes"], facts["class_names"]) == ("6", 16, 2, ["edges", "ramps"])
    assert facts["bands"] == ["LL1", "HL1", "LH1", "HH1"]
    assert facts["limits"]["count"] == 8
    assert gans.version.url not in json.dumps(facts)
    assert ask("GET", "/healthz").json() == {"status": "alive", "token": False}
    assert ask("GET", "/readyz").json() == {"status": "ready"}
    page = ask("GET", "/")
    assert "openapi.json" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_files_of_a_page_are_served(gans: HostedModel, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>the page</p>")
    (tmp_path / "page.js").write_text("1")
    ask = ask_of(gans, static=tmp_path, token=TOKEN)
    assert ask("GET", "/").text == "<p>the page</p>"
    assert ask("GET", "/static/page.js").text == "1"
    error_of(ask("GET", "/static/no.js"))
    assert ask("GET", "/static/..%2f..%2fetc/passwd").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "what", "status", "field"),
    [
        ("GET", "/no", {}, 404, None),
        ("GET", "/v1/images", {}, 405, None),
        ("POST", "/v1/images", {"content": b"{}"}, 415, None),
        ("POST", "/v1/images", {"json": {"sed": 1}}, 422, "sed"),
        ("POST", "/v1/images", {"json": {"count": 9}}, 422, "count"),
        ("POST", "/v1/images", {"json": {"evaluations": 11}}, 422, "evaluations"),
        ("POST", "/v1/images", {"json": {"gains": {"XX": 1}}}, 400, "gains"),
        ("POST", "/v1/images", {"json": {"prompt": "x" * 1000}}, 413, None),
        ("POST", "/v1/edit", {"json": {}}, 415, None),
        ("POST", "/v1/edit", {"files": {"image": ("a", b"x" * 20_000)}}, 413, None),
        ("POST", "/v1/edit", {"files": {"image": ("a", b"")}, "data": {"gains": "{}"}}, 422, None),
        ("POST", "/v1/edit", {"files": [("image", FILE), ("image", FILE)]}, 422, "image"),
        ("POST", "/v1/edit", {"files": [(f"f{i}", FILE) for i in range(9)]}, 400, None),
        ("POST", "/v1/super-resolve", {"files": {"image": ("a", b"no image")}}, 422, "image"),
        ("POST", "/v1/decompose", {"files": {"image": ("a", png_of(65, 65))}}, 422, "image"),
    ],
)
def test_errors_have_one_form(
    ask: Ask, method: str, path: str, what: dict[str, Any], status: int, field: str | None
) -> None:
    answer = ask(method, path, **what)
    assert answer.status_code == status, answer.text
    message, wrong = error_of(answer)
    assert message
    assert wrong == field


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=", b"x"),
        ("multipart/form-data; boundary=a", b""),
        ("multipart/form-data; boundary=a", b"--a\r\n"),
        ("multipart/form-data; boundary=a", PART + b"name=image\r\n\r\nx"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: nothing\r\n\r\nx\r\n--a--"),
        (
            "multipart/form-data; boundary=a; charset=no",
            b"--a\r\nContent-Disposition: form-data; name=x\r\n\r\nx\r\n--a--",
        ),
        (
            "multipart/form-data; boundary=a",
            b"--a\r\nContent-Disposition: form-data; name=\xff\xfe\r\n\r\n\xff\r\n--a--",
        ),
    ],
)
def test_damaged_forms_are_refused(ask: Ask, content_type: str, body: bytes) -> None:
    answer = ask("POST", "/v1/edit", content=body, headers={"Content-Type": content_type})
    assert answer.status_code in (400, 422), answer.text
    error_of(answer)


def test_a_body_of_unknown_length_is_cut_at_the_limit(ask: Ask) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 10_000_000:
            sent += 1_000
            yield b" " * 1_000

    answer = ask("POST", "/v1/images", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert sent < 10_000


def test_the_token_is_asked_for_in_the_header_alone(gans: HostedModel) -> None:
    lines: list[str] = []
    ask = ask_of(gans, token=TOKEN, log=lines.append)
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
    ):
        answer = ask("POST", f"/v1/images?token={TOKEN}", json={}, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        error_of(answer)
    assert [ask("GET", path).status_code for path in ("/metrics", "/v1/model", "/openapi.json")] == [401] * 3
    assert [ask("GET", path).status_code for path in ("/", "/healthz", "/readyz")] == [200] * 3
    assert ask("POST", "/v1/images", json={}, headers=BEARER).status_code == 200
    assert ask("POST", "/v1/images", json={}, headers=BEARER | {"Host": "models.example"}).status_code == 200
    assert TOKEN not in "".join(lines)


def test_without_a_token_other_names_than_this_machines_are_refused(ask: Ask) -> None:
    assert ask("GET", "/v1/model", headers={"Host": "evil.example"}).status_code == 403
    assert ask("GET", "/v1/model", headers={"Host": "127.0.0.1:9"}).status_code == 200


def test_lines_of_the_log_hold_method_path_status_and_seconds_alone(gans: HostedModel) -> None:
    lines: list[str] = []
    ask = ask_of(gans, log=lines.append)
    ask("POST", "/v1/images?secret=1", json={"class": "secret"}, headers={"Cookie": "secret"})
    ask("GET", "/a%0Ab")
    assert [line.rpartition(" 0.")[0] for line in lines] == ["POST /v1/images 400", "GET /a\\nb 404"]


def test_of_what_pages_and_probes_repeat_the_log_has_errors_alone(gans: HostedModel) -> None:
    lines: list[str] = []
    ask = ask_of(gans, log=lines.append)
    repeated = ("/healthz", "/readyz", "/metrics")
    assert [ask("GET", path).status_code for path in repeated] == [200] * len(repeated)
    assert lines == []
    assert ask("GET", "/v1/model").status_code == 200
    for method, path in (("GET", "/static/none.js"), ("GET", "/run/facts"), ("POST", "/healthz")):
        assert ask(method, path).status_code >= 400
    assert [line.rpartition(" ")[0].rpartition(" 0.")[0] for line in lines] == [
        "GET /v1/model 200", "GET /static/none.js 404", "GET /run/facts 404", "POST /healthz 405",
    ]  # fmt: skip


class SlowBackend(LocalBackend):
    """A model whose images wait for an event."""

    def __init__(self, hosted: HostedModel, limits: Limits) -> None:
        super().__init__(hosted, limits)
        self.opened = asyncio.Event()

    async def images(self, body: ImagesBody, seconds: float) -> Answer | Refusal:
        await self.opened.wait()
        return await super().images(body, seconds)


def test_more_requests_than_the_queue_holds_are_told_to_come_back(gans: HostedModel) -> None:
    async def run() -> list[httpx.Response]:
        backend = SlowBackend(gans, LIMITS)
        transport = httpx.ASGITransport(create_application(backend, LIMITS))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            tasks = [asyncio.create_task(client.post("/v1/images", json={"seed": i})) for i in range(7)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            while len(done) < 3:
                done, _ = await asyncio.wait(tasks, timeout=0.1)
            assert (await client.get("/healthz")).status_code == 200
            backend.opened.set()
            return list(await asyncio.gather(*tasks))

    answers = asyncio.run(run())
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [429] * 3
    for answer in answers:
        if answer.status_code == 429:
            assert int(answer.headers["retry-after"]) >= 1
            error_of(answer)


def test_who_sends_slowly_takes_no_place_of_others(gans: HostedModel) -> None:
    sent = asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b'{"seed":'
        await sent.wait()
        yield b" 3}"

    async def run() -> tuple[list[int], list[int]]:
        transport = httpx.ASGITransport(create_application(LocalBackend(gans, LIMITS), LIMITS))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            kind = {"Content-Type": "application/json"}
            slow = [
                asyncio.create_task(client.post("/v1/images", content=slow_body(), headers=kind))
                for _ in range(8 * LIMITS.queue)
            ]
            await asyncio.sleep(0.1)
            too_many = (await client.post("/v1/images", json={"seed": 3})).status_code  # bodies have a bound as well
            slow.pop().cancel()
            await asyncio.sleep(0)
            quick = (await client.post("/v1/images", json={"seed": 3})).status_code
            sent.set()
            return [too_many, quick], [answer.status_code for answer in await asyncio.gather(*slow)]

    quick, slow = asyncio.run(run())
    assert quick == [429, 200]
    assert set(slow) <= {200, 429}
    assert slow.count(200) >= LIMITS.queue


def test_bodies_share_a_bounded_memory() -> None:
    memory = BodyMemory(100)
    with memory.part() as first, memory.part() as second:
        first(60)
        second(40)
        with pytest.raises(RefusedError) as refusal:
            first(1)
        assert refusal.value.refusal.status == 429
    with memory.part() as third:
        third(100)  # what the others had is free again


def test_answers_of_workers_that_are_late_or_lost_say_when_to_ask_again(gans: HostedModel) -> None:
    answer = ask_of(gans, limits=Limits(seconds=1e-9))("POST", "/v1/decompose", files={"image": FILE})
    assert answer.status_code in (408, 504)
    error_of(answer)


def test_counters_are_those_of_prometheus(gans: HostedModel) -> None:
    ask = ask_of(gans)
    ask("POST", "/v1/images", json={"count": 3})
    ask("POST", "/v1/images", json={"count": 0})
    ask("GET", "/v1/model")
    ask("GET", "/one-of-many-paths")
    lines = ask("GET", "/metrics").text.splitlines()
    assert 'freqgan_serve_requests_total{path="/v1/images",status="200"} 1.0' in lines
    assert 'freqgan_serve_errors_total{path="/v1/images",status="422"} 1.0' in lines
    assert 'freqgan_serve_errors_total{path="other",status="404"} 1.0' in lines
    assert "freqgan_serve_images_total 3.0" in lines
    assert "freqgan_serve_pass_images_sum 3.0" in lines
    assert "freqgan_serve_pass_seconds_count 1.0" in lines
    assert f'freqgan_serve_model{{model="{gans.digest}",version="6"}} 1.0' in lines


def test_the_view_of_a_training_is_mounted_behind_the_same_guard(gans: HostedModel) -> None:
    async def facts(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    ask = ask_of(gans, live=Starlette(routes=[Route("/facts", facts)]), token=TOKEN)
    assert ask("GET", "/run/facts").status_code == 401
    assert ask("GET", "/run/facts", headers=BEARER).text == "/run/facts"
    assert ask("GET", "/v1/model", headers=BEARER).json()["live"]
    without = ask_of(gans)
    assert not without("GET", "/v1/model").json()["live"]
    assert without("GET", "/run/facts").status_code == 404


def test_the_document_describes_every_path_and_every_error(ask: Ask) -> None:
    document = ask("GET", "/openapi.json").json()
    assert set(document["paths"]) == set(PATHS)
    for operation in OPERATIONS:
        posted = document["paths"][operation.path]["post"]
        assert {"200", "400", "401", "413", "422", "429", "503", "504"} <= posted["responses"].keys()
        (content,) = posted["requestBody"]["content"].values()
        name = content["schema"]["$ref"].rpartition("/")[2]
        assert document["components"]["schemas"][name]["additionalProperties"] is False
    assert "class" in document["components"]["schemas"]["ImagesBody"]["properties"]
    references = json.dumps(document).split('"#/components/schemas/')[1:]
    assert {text.partition('"')[0] for text in references} <= document["components"]["schemas"].keys()
