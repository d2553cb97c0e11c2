"""``freqgan serve`` as a command: what it refuses, and a whole service that ends by SIGTERM."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from cluster.serving.hosted_model import load_model
from cluster.serving.model_source import ModelSource
from launch.settings.exposure import check_exposure, check_extra, read_token
from tests.support.commands import ROOT, command_line, refused, run_command
from tests.support.serving import error_of, pixels_of, small_run

Capsys = pytest.CaptureFixture[str]
TOKEN = "0123456789abcdef"
PATIENCE_S = 90


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FREQGAN_TOKEN", raising=False)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--host", "0.0.0.0"], "give --token-file FILE or FREQGAN_TOKEN"),
        (["--host", "models.example"], "other machines would see it"),
        (["--token-file", "no/file"], "--token-file no/file cannot be read (No such file"),
        (["--device", "tpu"], "there are cpu, cuda"),
        (["--port", 65536], "65535"),
        (["--replicas", 0], "0"),
    ],
)
def test_what_cannot_be_served_is_refused(capsys: Capsys, tmp_path: Path, options: list[object], part: str) -> None:
    assert part in refused(run_command(capsys, "serve", tmp_path, *options))


def test_a_folder_without_a_model_is_refused(capsys: Capsys, tmp_path: Path) -> None:
    assert "holds no checkpoint" in refused(run_command(capsys, "serve", tmp_path))
    assert "is not there" in refused(run_command(capsys, "serve", tmp_path / "no"))


def test_tokens_are_words_of_some_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> None:
    assert read_token(None) is None
    monkeypatch.setenv("FREQGAN_TOKEN", TOKEN)
    assert read_token(None) == TOKEN
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}{TOKEN}\n")
    assert read_token(str(path)) == TOKEN + TOKEN
    for text in ("short", "two words that are long", "ä" * 20):
        path.write_text(text)
        message = refused(run_command(capsys, "serve", tmp_path, "--token-file", path))
        assert "openssl rand -hex 32" in message
        assert text not in message


def test_loopback_alone_needs_no_token() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_exposure(host, None)
    check_exposure("0.0.0.0", TOKEN)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    check_extra()
    monkeypatch.setattr("launch.settings.exposure.MODULES", ("starlette", "no_such_module"))
    with pytest.raises(Exception, match=r"no_such_module: not installed; run `pip install 'freqgan\[serve\]'`"):
        check_extra()


def test_an_exported_folder_is_served_as_its_run_is(capsys: Capsys, small_shards: Path, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", small_shards, max_steps=2)
    assert run_command(capsys, "export", run, "--out", tmp_path / "exported").code == 0
    exported, trained = (load_model(ModelSource(str(url)).newest()) for url in (tmp_path / "exported", run))
    assert exported.digest == trained.digest
    assert exported.facts() == trained.facts()


def end_within_a_request(process: subprocess.Popen[str], port: int) -> bytes:
    """Send SIGTERM between the two halves of a request; what comes back."""
    head = f"POST /v1/images HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 11\r\n\r\n".encode())
        time.sleep(0.5)  # for which the server may take to read it
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(b'{"seed": 1}')
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_service_answers_and_ends_by_sigterm_with_0(small_shards: Path, tmp_path: Path) -> None:
    run, token = small_run(tmp_path / "run", small_shards), tmp_path / "token"
    token.write_text(TOKEN)
    command = command_line("serve", run, "--port", 0, "--token-file", token)
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        line = next(line for line in lines if "answers at" in line or "error" in line)
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        with httpx.Client(base_url=address[0], timeout=PATIENCE_S) as client:
            assert client.get("/healthz").status_code == 200
            assert "static/page.js" in client.get("/").text
            assert client.get("/static/page.js").headers["content-type"].startswith("text/javascript")
            error_of(client.post("/v1/images", json={}))
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = client.post("/v1/images", json={"seed": 1}, headers=headers)
            assert pixels_of(answer.content).shape == (16, 16, 3)
        last = end_within_a_request(process, int(address[0].rpartition(":")[2]))
        assert last.startswith(b"HTTP/1.1 200 OK\r\n")
        said, out = "".join(lines), process.stdout.read() if process.stdout else ""
        assert process.wait(PATIENCE_S) == 0, said
    assert out == f"{run} is not served any more\n"
    assert "POST /v1/images 401" in said
    assert "POST /v1/images 200" in said
    assert TOKEN not in said
    assert "Traceback" not in said
