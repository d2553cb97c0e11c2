"""Scheduled retraining on a bucket that grows: promote, refuse, nothing new, two at once, killed, rolled back."""

from __future__ import annotations

import http.server
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from cluster.run.checkpoints import find_checkpoint
from cluster.run.model_registry import ModelRegistry
from freqgan.errors import InputError
from launch.commands.retrain import judge
from launch.settings.policy import load_policy
from tests.campaigns.retraining import NEVER_GOOD_ENOUGH, Bench, killed_until_done
from tests.support.commands import Outcome, refused, run_command

NAN, INFINITY = float("nan"), float("inf")
Capsys = pytest.CaptureFixture[str]


@pytest.fixture
def bench(tmp_path: Path, small_shards: Path, held_out: Path, s3_server: str) -> Bench:
    return Bench(tmp_path, small_shards, held_out)


def retrain(capsys: Capsys, policy: Path) -> Outcome:
    return run_command(capsys, "retrain", policy)


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server that remembers what it is told."""
    told: list[dict[str, object]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that the base class calls
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/secret-token", told
        server.shutdown()


@pytest.mark.usefixtures("brief_critic")
def test_promote_refuse_nothing_new_and_roll_back(
    capsys: Capsys, bench: Bench, webhook: tuple[str, list[dict[str, object]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = webhook
    monkeypatch.setenv("HOOK", url)
    policy = partial(bench.policy, overrides=["checkpoint_every=2", "plan.bands=[LL1]"])
    model = f"{bench.bucket.url}/models/clothes"

    bench.grow(1)
    first = retrain(capsys, policy(webhook="${HOOK}"))
    assert first.code == 0, first
    assert "version 1: 40 new images of 40; begins from nothing" in first.out
    assert "version 1 is now in use" in first.out

    again = retrain(capsys, policy(webhook="${HOOK}"))
    assert (again.code, again.out) == (0, "nothing to do: 0 new images since version 1, and 1 are wanted\n")

    bench.grow(2)
    assert "nothing to do: 40 new images" in retrain(capsys, policy(min_new_images=41)).out
    second = retrain(capsys, policy(webhook="${HOOK}"))
    assert "version 2: 40 new images of 80; begins with version 1" in second.out
    assert "version 2 is now in use" in second.out

    bench.grow(3)
    third = retrain(capsys, policy(gate=NEVER_GOOD_ENOUGH, webhook="${HOOK}"))
    assert third.code == 0
    assert "version 3 is not put in use: it is too much worse in sliced_wasserstein" in third.out
    assert "nothing to do" in retrain(capsys, policy(gate=NEVER_GOOD_ENOUGH)).out

    store = bench.store
    current = store.current()
    assert current is not None
    assert (current.stack, store.numbers()) == ((1, 2), [1, 2, 3])
    assert [(one["version"], one["in_use"], one["from"]) for one in told] == [
        (1, True, None),
        (2, True, 1),
        (3, False, 2),
    ]
    record = store.version(3).record
    assert record.data.images == 96
    assert record.verdict.rows[0].holds is False
    assert record.values()["settings"]["checkpoint_every"] == 2
    everything = b"".join(store.folder.read(name) for name in store.folder.list() if not name.endswith(".safetensors"))
    assert b"secret-token" not in everything
    assert b"test-secret" not in everything
    for name in ("summary.md", "summary.html"):
        assert b"not put in use" in store.version(3).folder.read(name)

    assert f"{model}s is not there: name" in run_command(capsys, "models", "list", f"{model}s").err
    listed = run_command(capsys, "models", "list", model)
    assert "does not hold" in listed.out
    assert "DAMAGED" not in listed.out
    shown = json.loads(run_command(capsys, "models", "show", model).out)
    assert (shown["number"], shown["from"], shown["moves"][0]["why"]) == (2, 1, "promoted: the gate holds")
    assert find_checkpoint(model).digest() == shown["digest"]  # the folder of a model is a run, too

    assert run_command(capsys, "models", "rollback", model).out == "version 1 is now in use, instead of 2\n"
    assert "nothing to roll back to" in refused(run_command(capsys, "models", "rollback", model))
    assert "nothing to do" in retrain(capsys, policy()).out  # what was rolled back is not put in use again
    assert run_command(capsys, "models", "promote", model, 3).out == "version 3 is now in use\n"
    assert "has no version 9; there are: 1, 2, 3" in refused(run_command(capsys, "models", "promote", model, 9))
    assert run_command(capsys, "generate", model, "--count", 2, "--out", bench.folder / "images").code == 0


@pytest.mark.long
@pytest.mark.usefixtures("brief_critic")
def test_a_warm_start_goes_on_from_the_weights_of_the_model(capsys: Capsys, bench: Bench) -> None:
    bench.grow(1)
    assert retrain(capsys, bench.policy()).code == 0
    bench.grow(2)
    still = [
        "optimiser.learning_rate=1e-12",
        "optimiser.learning_rate_final=1e-12",
        "image_stage.alpha_learning_rate=0",
    ]
    policy = bench.policy(overrides=["checkpoint_every=2", *still])
    assert retrain(capsys, policy).code == 0
    first, second = (bench.store.version(number).checkpoint().states() for number in (1, 2))
    for stage, tensors in first.items():
        for name, before in tensors.items():
            if name.startswith("generator."):  # with next to no learning rate they stay what they were
                assert (second[stage][name] - before).abs().max() < 1e-5, (stage, name)
    other = bench.policy(overrides=["checkpoint_every=2", "transform=dwt:db2"])
    bench.grow(3)
    assert (
        "the policy's networks are not those of the current model (transform): begins anew"
        in retrain(capsys, other).err
    )


@pytest.mark.long
def test_two_at_once(bench: Bench) -> None:
    bench.grow(1)
    policy = bench.policy(overrides=["checkpoint_every=2", "images=400", "max_steps=40"])
    first = bench.start(policy)
    while not bench.store.attempts():
        time.sleep(0.05)
    second = bench.start(policy)
    outcomes = {name: process.communicate(timeout=240)[0] for name, process in (("first", first), ("second", second))}
    assert (first.returncode, second.returncode) == (0, 0), outcomes
    trained = [name for name, said in outcomes.items() if "version 1 is now in use" in said]
    assert len(trained) == 1, outcomes
    (other,) = set(outcomes) - set(trained)
    assert "nothing to do" in outcomes[other]
    assert bench.store.numbers() == [1]


@pytest.mark.long
def test_killed_and_run_again(bench: Bench) -> None:
    """A short version of ``make retraining``."""
    bench.grow(1)
    outcome = killed_until_done(bench, bench.policy(), 3, random.Random(1), 12.0)
    assert outcome.incomplete == 0
    assert set(outcome.codes) == {0}, outcome
    current = bench.store.current()
    assert current is not None
    assert (current.stack, bench.store.numbers()) == ((1,), [1])


@pytest.mark.long
def test_shards_that_are_replaced_while_a_version_is_trained(capsys: Capsys, bench: Bench) -> None:
    bench.grow(2)
    policy = bench.policy(overrides=["checkpoint_every=2", "images=400000"])
    process = bench.start(policy)
    while not (bench.store.attempts() and bench.store.attempt(1).exists("run/checkpoints/LATEST")):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    bench.grow(1)
    again = retrain(capsys, bench.policy())
    assert again.code == 0, again
    assert "version 1 was begun on shards that are gone or replaced (shard-00001.tar): begins anew" in again.err
    assert "version 1: 40 new images of 40" in again.out
    assert "version 1 is now in use" in again.out


@pytest.mark.long
@pytest.mark.usefixtures("brief_critic")
def test_a_damaged_version_is_never_put_in_use(capsys: Capsys, bench: Bench) -> None:
    bench.grow(1)
    assert retrain(capsys, bench.policy()).code == 0
    bench.grow(2)
    assert retrain(capsys, bench.policy(gate=NEVER_GOOD_ENOUGH)).code == 0
    store = bench.store
    folder = store.version(2).checkpoint().folder
    folder.write("LL1.safetensors", folder.read("LL1.safetensors")[:-1] + b"?")
    model = f"{bench.bucket.url}/models/clothes"
    assert "damaged" in refused(run_command(capsys, "models", "promote", model, 2))
    assert "DAMAGED" in run_command(capsys, "models", "list", model).out
    current = ModelRegistry(model).current()
    assert current is not None
    assert current.stack == (1,)


def test_a_damaged_attempt_is_refused_with_its_name_and_the_remedy(capsys: Capsys, bench: Bench) -> None:
    bench.grow(1)
    for content in (b"{", b'{"number": 1}', b"\xff"):
        bench.store.attempt(1).write("attempt.json", content)
        fault = refused(retrain(capsys, bench.policy()))
        assert "attempts/000001/attempt.json is damaged (" in fault
        assert "delete it, and version 1 is begun anew" in fault


def test_storage_that_cannot_be_used_is_not_nothing_to_do(capsys: Capsys, bench: Bench) -> None:
    """A schedule must hear of it: it is exit 0 when another runner holds the lease, and only then."""
    (bench.folder / "file").write_text("")
    for models in ("s3://no-such-bucket/models", str(bench.folder / "file")):
        assert "nothing to do" not in refused(retrain(capsys, bench.policy(models=models)))


@pytest.mark.parametrize(
    ("gate", "scores", "rival", "holds"),
    [
        ({"sliced_wasserstein": 0.05}, 1.04, 1.0, True),
        ({"sliced_wasserstein": 0.05}, 1.06, 1.0, False),
        ({"sliced_wasserstein": -0.1}, 0.95, 1.0, False),
        ({"neighbours.coverage": 0.1}, 0.91, 1.0, True),
        ({"neighbours.coverage": 0.1}, 0.89, 1.0, False),
        ({"sliced_wasserstein": 0.05}, float("nan"), 1.0, False),
        ({"sliced_wasserstein": 0.05}, 99.0, None, True),
        ({"sliced_wasserstein": 0.05}, float("nan"), None, False),
        ({"sliced_wasserstein": 0.05}, float("inf"), None, False),
        ({"sliced_wasserstein": 0.05}, 1.0, float("nan"), True),  # whatever has a score is better
        ({"sliced_wasserstein": 0.05}, float("nan"), float("nan"), False),
    ],
)
def test_the_gate(gate: dict[str, float], scores: float, rival: float | None, holds: bool) -> None:
    (metric,) = gate
    verdict = judge(gate, {metric: scores}, None if rival is None else {metric: rival})
    assert verdict.holds is holds


def test_a_metric_that_was_not_measured() -> None:
    with pytest.raises(InputError, match=r"'neighbours\.cover' was not measured; measured are sliced_wasserstein"):
        judge({"neighbours.cover": 0.1}, {"sliced_wasserstein": 1.0}, None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gate": {}}, r"gate = \{\}: name at least one metric"),
        ({"gate": {"slice_wasserstein": 0.1}}, r"did you mean sliced_wasserstein"),
        ({"imags": 3}, r"unknown setting 'imags' \(did you mean images"),
        ({"name": "a/b"}, "use letters, digits"),
        ({"images": 0}, "images = 0: must be greater than or equal to 1"),
        ({"images": True}, "images = True: must be a whole number, not true or false"),
        ({"count": "100"}, "count = '100': must be a whole number, not text"),
        *(({"gate": {"spectrum_db": x}}, "gate = .*: must be a finite number") for x in (NAN, INFINITY, -INFINITY)),
        ({"gate": {"spectrum_db": True}}, "gate = .*: must be a number, not true or false"),
        ({"gate": {"spectrum_db": "0.1"}}, "gate = .*: must be a number, not text"),
        (
            {"gate": {"learned.frechet": 0.1}, "learned": False},
            "gate: learned.frechet is not measured with learned: false",
        ),
        ({"name": 2024}, r"name = 2024: must be .*\(put it in quotes\)"),
    ],
)
def test_policies_that_cannot_be(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    values = {"name": "x", "models": "m", "data": "d", "held_out": "h", "settings": "smoke", "images": 8,
              "gate": {"sliced_wasserstein": 0.1}}  # fmt: skip
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(values | changes))
    with pytest.raises(InputError, match=message):
        load_policy(str(path))


def test_the_usual_gate_asks_what_images_show(tmp_path: Path) -> None:
    values = {"name": "x", "models": "m", "data": "d", "held_out": "h", "settings": "smoke", "images": 8}
    path = tmp_path / "policy.yaml"
    path.write_text(yaml.safe_dump(values))
    policy = load_policy(str(path))
    assert list(policy.gate) == ["learned.frechet", "sliced_wasserstein", "cross_band_frechet"]
    assert policy.learned
    path.write_text(yaml.safe_dump(values | {"gate": {"sliced_wasserstein": 0.1}, "learned": False}))
    assert not load_policy(str(path)).learned


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keep: 1\nkeep: 2\n", r"'keep' is given twice \(line 2"),
        ("gate:\n  spectrum_db: 1\n  spectrum_db: 2\n", r"'spectrum_db' is given twice \(line 3"),
        ("name: {{ name }}\n", r"line 1.*template that was not filled in"),
        ("name: clothes-{{ day }}\n", r"line 1.*template that was not filled in"),
        ("- name\n", "holds no policy"),
        ("", "holds no policy"),
        ("null: 1\n", "unknown setting 'None'"),
    ],
)
def test_text_that_is_no_policy(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_policy(str(path))


def test_a_model_is_not_measured_on_one_picture(capsys: Capsys, bench: Bench, one_picture: Path) -> None:
    bench.grow(1)
    assert "all the same picture" in refused(retrain(capsys, bench.policy(held_out=str(one_picture))))
    assert bench.store.attempts() == []  # nothing was begun


def test_data_without_an_index_and_a_webhook_without_its_variable(capsys: Capsys, bench: Bench) -> None:
    assert "has no index.json that names shards; run `freqgan shards index" in refused(retrain(capsys, bench.policy()))
    policy = bench.policy(webhook="${NOT_THERE}")
    assert "the environment has no variable NOT_THERE" in refused(retrain(capsys, policy))
    assert "must be an http:// or https:// URL" in refused(retrain(capsys, bench.policy(webhook="file:///etc/passwd")))
