"""Plans, their lower bound, what they move over the network, and the simulation of their pipeline."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.planning.bin_packing import make_plan
from cluster.planning.cost_model import counted_work, estimated, measure, with_speeds
from cluster.planning.device_pool import READY_PER_DEVICE, Pool, Task
from cluster.planning.devices import ACCELERATORS, CPU, GIB, Device, accelerator_of, own_devices, parse_nodes
from cluster.planning.lower_bound import lower_bound_s
from cluster.planning.plan import Constraints
from cluster.planning.planner import best_plan
from cluster.planning.simulation import Conditions, simulate
from cluster.planning.stage_cost import StageCost
from cluster.planning.traffic import exchanged_bytes, traffic
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from tests.campaigns.chaos.processes import below, command_of
from tests.support.commands import run_command
from tests.support.mixtures import FLOW_BELOW_GAN, FLOW_OVERRIDES, FLOWS, SAMPLED
from tests.support.models import tiny_settings
from tests.support.plan_bounds import assignment_bound_s, best_known_bound_s, rules_out
from tests.support.plans import check_plan, random_problem


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def devices(*speeds: float, node: str = "", memory_gib: float = 80) -> list[Device]:
    return [Device(node or f"n{i}", i, "H100", s, int(memory_gib * GIB)) for i, s in enumerate(speeds)]


# -- inventory ---------------------------------------------------------------------------------


def test_nodes_are_read() -> None:
    found = parse_nodes("4xH100, 2xt4:spot,2*8xA100-80G")
    assert len(found) == 4 + 2 + 16
    assert [d.name for d in found[:5]] == ["n1/H100.0", "n1/H100.1", "n1/H100.2", "n1/H100.3", "n2/T4.0"]
    assert {d.node for d in found} == {"n1", "n2", "n3", "n4"}
    assert [d.spot for d in found[3:6]] == [False, True, True]
    assert found[-1].memory_bytes == 80 * GIB


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4H100", r"'4H100' is not a description of nodes; write COUNTxTYPE"),
        ("4xH10", r"no accelerator is called 'H10' \(did you mean H100"),
        (" , ", "describes no device"),
        ("0xH100", "describes no device"),
        ("9999*8xT4", "makes more than 65536 devices"),
    ],
)
def test_nodes_that_cannot_be_read_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_nodes(text)


def test_a_gpu_is_known_by_the_name_its_driver_gives_it() -> None:
    assert accelerator_of("NVIDIA A100-SXM4-40GB") == "A100"
    assert accelerator_of("Tesla T4") == "T4"
    assert accelerator_of("NVIDIA L40S") == "L40S"
    assert accelerator_of("NVIDIA H100 80GB HBM3") == "H100"
    assert {device.accelerator for device in own_devices("cpu")} == {CPU}


# -- plans -------------------------------------------------------------------------------------


def test_whole_stages_are_enough_where_they_balance() -> None:
    stages = [StageCost(f"s{i}", 0.001, 0.001) for i in range(6)]
    plan = make_plan(stages, devices(1, 1, 1), batch=32)
    check_plan(plan, stages)
    assert len(plan.replicas) == 6
    assert plan.step_s == pytest.approx(2 * 0.033)
    assert plan.step_s == pytest.approx(plan.lower_bound_s)


def test_a_dear_stage_is_cut_and_faster_devices_get_more() -> None:
    stages = [StageCost("cheap", 0.0001, 0.0001), StageCost("dear", 0.0001, 0.01)]
    plan = make_plan(stages, devices(1, 1, 4), batch=64)
    check_plan(plan, stages)
    assert len(plan.by_stage["dear"]) == 3
    assert len(plan.by_stage["cheap"]) == 1
    shares = {part.device: part.images for part in plan.by_stage["dear"]}
    assert shares[2] == max(shares.values())
    assert plan.step_s <= 1.05 * plan.lower_bound_s
    whole = make_plan(stages, devices(1, 1, 4), batch=64, constraints=Constraints(cut=False))
    assert len(whole.replicas) == 2
    assert whole.step_s > plan.step_s


def test_constraints_are_kept() -> None:
    stages = [StageCost(f"s{i}", 0.001, 0.001) for i in range(4)]
    mixed = [replace(device, spot=i > 0) for i, device in enumerate(devices(1, 1, 1, 1))]
    constraints = Constraints(allowed=lambda stage, device: stage != "s3" or not device.spot)
    plan = make_plan(stages, mixed, 32, constraints)
    check_plan(plan, stages)
    assert {part.device for part in plan.by_stage["s3"]} == {0}
    with pytest.raises(InputError, match="no device may run s3: its constraints leave none of 3 devices"):
        make_plan(stages, mixed[1:], 32, constraints)


def test_memory_is_kept_or_refused_with_demand_beside_supply() -> None:
    stages = [StageCost(f"s{i}", 0.001, 0.001, GIB, GIB // 8) for i in range(4)]
    plan = make_plan(stages, devices(8, 1, 1, 1, 1, 1, memory_gib=6), batch=32)
    check_plan(plan, stages)  # a stage of 5 GiB: the fast device holds one and not two
    with pytest.raises(InputError, match=r"20 GiB wanted, 1.12 GiB of it by one image of s0; 2 devices have 12 GiB, 6"):
        make_plan(stages, devices(1, 1, memory_gib=6), batch=32)


@pytest.mark.parametrize("count", [10, pytest.param(24, marks=pytest.mark.long)])
def test_plans_are_near_the_bound_for_random_inventories(count: int) -> None:
    """A short ``make plans``; a bound that is proven to 3 % is enough to tell what is within 5 % of it."""
    rng = random.Random(7)
    for _ in range(count):
        stages, found, batch = random_problem(rng)
        plan = make_plan(stages, found, batch)
        check_plan(plan, stages)
        assert plan.step_s <= 1.05 * best_known_bound_s(plan, stages, precision=0.03) * (1 + 1e-9)
    assert plan == make_plan(stages, found, batch)


def test_no_plan_at_all_is_under_the_bound() -> None:
    """Every way to cut two stages of four images over two devices, tried."""
    rng = random.Random(3)
    for _ in range(30):
        stages = [StageCost(name, rng.uniform(0, 1), rng.uniform(0.1, 1)) for name in "ab"]
        speeds = [rng.uniform(0.3, 1), rng.uniform(0.3, 1)]
        best = min(
            max(
                sum(s.seconds(k) for s, k in zip(stages, (a, b), strict=True)) / speeds[0],
                sum(s.seconds(4 - k) for s, k in zip(stages, (a, b), strict=True)) / speeds[1],
            )
            for a, b in itertools.product(range(5), repeat=2)
        )
        assert lower_bound_s(stages, speeds, 4) <= best * (1 + 1e-9)
        assert not rules_out(stages, speeds, 4, best)
        plan = make_plan(stages, devices(*speeds), 4)
        assert plan.step_s >= best * (1 - 1e-9)
        assert assignment_bound_s(plan, stages) <= best


def test_no_plan_of_several_stages_is_under_the_bound() -> None:
    """Every way to cut one to four stages of up to three images over up to three devices, some stages nearly free."""
    rng = random.Random(5)
    for _ in range(60):
        batch, count = rng.randint(1, 3), rng.randint(1, 4)
        stages = [
            StageCost(f"s{i}", rng.uniform(0, 1) * rng.choice([0, 0.1, 1]), rng.uniform(0.05, 1)) for i in range(count)
        ]
        speeds = [rng.choice([1.0, 1.0, 0.7, 0.3]) for _ in range(rng.randint(1, 3))]
        cuts = [cut for cut in itertools.product(range(batch + 1), repeat=len(speeds)) if sum(cut) == batch]
        best = min(
            max(
                sum(stage.seconds(cut[device]) for stage, cut in zip(stages, chosen, strict=True)) / speed
                for device, speed in enumerate(speeds)
            )
            for chosen in itertools.product(cuts, repeat=count)
        )
        assert lower_bound_s(stages, speeds, batch) <= best * (1 + 1e-9)


def test_the_bound_knows_that_stages_on_one_device_are_paid_for_each() -> None:
    """Slow devices have no time for a dear stage: the whole work over all speed is a tenth less than the bound."""
    stages = [StageCost(f"s{i}", 0.4, 0.01) for i in range(5)] + [StageCost("dear", 0.9, 0.05)]
    speeds = [1.0, 1.0, 0.3, 0.3]
    whole_s = sum(stage.seconds(10) for stage in stages) / sum(speeds)
    bound_s = lower_bound_s(stages, speeds, 10)
    assert 1.1 * whole_s < bound_s <= make_plan(stages, devices(*speeds), 10).step_s * (1 + 1e-9)


# -- costs -------------------------------------------------------------------------------------

CROWD = """
import sys, time
from cluster.planning.contention import _busy
from cluster.run.settings import RunSettings

if __name__ == "__main__":
    with _busy(RunSettings.model_validate_json(sys.argv[1]), 1):
        print("busy", flush=True)
        time.sleep(600)
"""


def test_who_crowds_the_cores_ends_with_a_killed_measurement(tmp_path: Path) -> None:
    program = tmp_path / "crowd.py"
    program.write_text(CROWD)
    command = [sys.executable, str(program), run_settings().model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "busy\n"
        others = below(process.pid)
        assert others
        process.kill()
    until = time.monotonic() + 30
    while left := [pid for pid in others if command_of(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def run_settings(**changes: object) -> RunSettings:
    return RunSettings.model_validate(tiny_settings(**changes).model_dump() | {"data": "x", "device": "cpu"})


def test_costs_are_measured_once_and_estimated_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = run_settings(plan={"bands": ["LL1", "HL1"]})
    work = counted_work(settings)
    assert counted_work(settings) == work
    said: list[str] = []
    measured = measure(settings, work, said.append)
    assert [text.partition("(")[2] for text in said] == ["1 of 3)", "2 of 3)", "3 of 3)"]
    assert [stage.name for stage in measured.stages] == list(work)
    assert all(stage.seconds(settings.batch) > 0 and stage.fixed_s >= 0 < stage.image_s for stage in measured.stages)
    assert measured.contention >= 1
    monkeypatch.setattr("cluster.planning.cost_model._seconds", lambda *_: pytest.fail("measured again"))
    assert measure(settings, work) == measured
    cheap, dear = (estimated(settings, work, name) for name in ("H100", "T4"))
    assert all(a.fixed_s == b.fixed_s and a.image_s < b.image_s for a, b in zip(cheap, dear, strict=True))
    found = with_speeds(parse_nodes("1xH100,1xT4"), cheap, {"H100": cheap, "T4": dear}, settings.batch)
    assert found[0].speed == 1 > found[1].speed


def test_a_cache_that_is_damaged_or_cannot_be_written_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = run_settings(plan={"bands": "none"})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    work = counted_work(settings)
    (kept,) = (tmp_path / "freqgan" / "costs").iterdir()
    for damage in ("{torn", "[1]", '{"image": {"other": 1}}'):
        kept.write_text(damage)
        assert counted_work(settings) == work
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # no folder can be made in a file
    assert counted_work(settings) == work


# -- network -----------------------------------------------------------------------------------


def test_bytes_over_the_network_are_counted_by_hand() -> None:
    settings = run_settings()  # LL1, HL1, LH1, HH1 of 3 x 8 x 8 and the image stage, batch 4
    stages = [StageCost(name, 0.0, 1.0) for name in ("LL1", "HL1", "LH1", "HH1", "image")]
    one = make_plan(stages, devices(1, 1, node="n"), 4)
    assert traffic(settings, one, dict.fromkeys(one.by_stage, 10)).total == 0
    apart = make_plan(stages, devices(1, 1, 1, 1, 1), 4, Constraints(cut=False))
    moved = traffic(settings, apart, dict.fromkeys(apart.by_stage, 10))
    band = 4 * 3 * 8 * 8 * 4
    assert moved.images == 4 * 4 * 3 * 16 * 16
    assert moved.sub_images == (4 + 3 + 2 + 1) * band  # every band to all that come after it
    assert moved.feedback == 4 * band
    assert moved.replicas == 0
    assert moved.data_parallel == 2 * 4 * 4 * 50
    assert max(moved.by_node.values()) == moved.images + moved.feedback  # what the image stage's node sends


def test_replicas_are_not_taken_where_their_gradients_cost_more_than_they_save() -> None:
    settings = run_settings()
    stages = [StageCost(name, 1e-5, 0.001) for name in ("LL1", "HL1", "LH1", "HH1", "image")]
    parameters = dict.fromkeys((stage.name for stage in stages), 10**6)
    slow = best_plan(settings, stages, devices(*[1] * 12), parameters, link_bytes_per_s=1e8)
    fast = best_plan(settings, stages, devices(*[1] * 12), parameters, link_bytes_per_s=1e12)
    assert len(slow.replicas) == 5
    assert len(fast.replicas) > 5


def test_experts_that_wait_for_nobody_are_sent_batches_alone() -> None:
    settings = run_settings(**FLOWS)  # LL1 of 3 x 8 x 8 and HL-LH-HH1 of 9 x 8 x 8, batch 4
    stages = [StageCost(name, 0.0, 1.0) for name in ("LL1", "HL-LH-HH1")]
    apart = make_plan(stages, devices(1, 1), 4, Constraints(cut=False))
    moved = traffic(settings, apart, dict.fromkeys(apart.by_stage, 10))
    assert moved.total == moved.images == 4 * 3 * 16 * 16
    assert exchanged_bytes(settings) == 0


def test_sub_images_and_feedback_go_along_what_stages_need() -> None:
    stages = [StageCost(name, 0.0, 1.0) for name in ("LL1", "HL1", "image")]
    plan = make_plan(stages, devices(1, 1, 1), 4, Constraints(cut=False))
    band = 3 * 8 * 8 * 4
    real, sampled = run_settings(**FLOW_BELOW_GAN), run_settings(**SAMPLED)
    moved = traffic(real, plan, dict.fromkeys(plan.by_stage, 10))
    assert (moved.sub_images, moved.feedback) == (4 * band, 4 * band)  # of HL1 alone
    assert exchanged_bytes(real) == 2 * band
    moved = traffic(sampled, plan, dict.fromkeys(plan.by_stage, 10))
    assert (moved.sub_images, moved.feedback) == (3 * 4 * band, 4 * band)  # LL1 to HL1 and to the image stage as well
    assert exchanged_bytes(sampled) == 3 * band


# -- simulation --------------------------------------------------------------------------------

STAGES = [StageCost(name, 0.0, 0.01) for name in ("LL1", "HL1", "LH1", "HH1", "image")]
COSTS = {stage.name: stage for stage in STAGES}
AT_ONCE = Conditions(link_bytes_per_s=1e15, latency_s=0, call_s=0)


def pipeline(window: int, **changes: object) -> RunSettings:
    return run_settings(**changes).model_copy(update={"window": window})


def test_a_full_pipeline_is_as_fast_as_its_slowest_device() -> None:
    for count in (1, 2, 5):
        settings = pipeline(16, feedback={"lag": 16})
        plan = make_plan(STAGES, devices(*[1] * count), 4, Constraints(cut=False))
        outcome = simulate(settings, plan, COSTS, AT_ONCE)
        assert outcome.images_per_s == pytest.approx(plan.images_per_s, rel=0.03)


def test_a_window_of_one_runs_a_step_after_the_other() -> None:
    plan = make_plan(STAGES, devices(*[1] * 5), 4, Constraints(cut=False))
    outcome = simulate(pipeline(1), plan, COSTS, AT_ONCE)
    assert outcome.images_per_s == pytest.approx(4 / (5 * 0.04), rel=1e-6)


def test_experts_that_wait_for_nobody_are_held_back_by_the_window_alone() -> None:
    costs = {"LL1": StageCost("LL1", 0.0, 0.01), "HL-LH-HH1": StageCost("HL-LH-HH1", 0.0, 0.03)}
    plan = make_plan(list(costs.values()), devices(1, 1), 4, Constraints(cut=False))
    for window in (1, 2, 8):  # side by side, not one after the other: the dearest is all that counts
        outcome = simulate(pipeline(window, **FLOWS), plan, costs, AT_ONCE)
        assert outcome.images_per_s == pytest.approx(1 / 0.03, rel=1e-6)


def test_feedback_lets_no_window_pass_its_lag() -> None:
    plan = make_plan(STAGES, devices(*[1] * 5), 4, Constraints(cut=False))
    rates = [
        simulate(pipeline(window, feedback={"lag": lag}), plan, COSTS, AT_ONCE).images_per_s
        for window, lag in ((2, 16), (16, 2), (16, 16))
    ]
    assert rates[0] == pytest.approx(rates[1], rel=0.02)
    assert rates[2] > 1.5 * rates[1]


def test_slow_links_and_calls_cost_what_they_take() -> None:
    plan = make_plan(STAGES, devices(*[1] * 5), 4, Constraints(cut=False))
    free = simulate(pipeline(8), plan, COSTS, AT_ONCE)
    latency = simulate(pipeline(1), plan, COSTS, replace(AT_ONCE, latency_s=0.01))
    assert latency.images_per_s == pytest.approx(4 / (5 * 0.04 + 5 * 0.01), rel=1e-6)  # four bands and feedback
    calls = simulate(pipeline(8, feedback={"lag": 8}), plan, COSTS, replace(AT_ONCE, call_s=0.01))
    assert calls.images_per_s == pytest.approx(4 / 0.05, rel=0.05)
    band = 4 * 3 * 8 * 8 * 4
    narrow = simulate(pipeline(8), plan, COSTS, replace(AT_ONCE, link_bytes_per_s=4 * band / 0.5))
    assert narrow.images_per_s <= 4 / 0.5 < free.images_per_s  # the first band alone sends for half a second


def test_the_cores_of_a_node_are_a_pool() -> None:
    cores = [Device("here", i, CPU, 1.0, GIB) for i in range(2)]
    unequal = [StageCost(name, 0.0, 0.01 * (1 + 2 * (name == "image"))) for name in COSTS]
    plan = make_plan(unequal, cores, 4, Constraints(cut=False))
    outcome = simulate(pipeline(8, feedback={"lag": 8}), plan, {s.name: s for s in unequal}, AT_ONCE)
    assert outcome.images_per_s == pytest.approx(2 * 4 / (7 * 0.04), rel=0.05)


def test_busy_cores_slow_each_other_down() -> None:
    cores = [Device("here", i, CPU, 1.0, GIB) for i in range(2)]
    plan = make_plan(STAGES, cores, 4, Constraints(cut=False))
    crowded = replace(AT_ONCE, contention=1.25)
    alone = simulate(pipeline(1), plan, COSTS, crowded)
    assert alone.images_per_s == pytest.approx(4 / (5 * 0.04), rel=1e-6)  # one core works at a time
    full = [simulate(pipeline(8, feedback={"lag": 8}), plan, COSTS, c).images_per_s for c in (AT_ONCE, crowded)]
    assert full[0] / full[1] == pytest.approx(1.25, rel=0.02)


def test_the_more_tasks_are_ready_the_slower_are_all_of_them() -> None:
    pool, most = Pool(2, 1.6), READY_PER_DEVICE * 2
    tasks = [Task(0, number, "here", 1.0) for number in range(most + 1)]
    ends = []
    for task in tasks:
        pool.queue.append(task)
        ends.append([end_s for end_s, _ in pool.start(0.0)])
    assert ends[0] == [1.0]
    assert ends[1] == pytest.approx([1.2, 1.2])
    assert ends[2] == pytest.approx([1.4, 1.4])
    assert ends[most - 1] == pytest.approx([1.6, 1.6])
    assert ends[most] == []  # as crowded as can be: nothing changes


def test_failures_cost_their_restart_and_what_is_done_again() -> None:
    plan = make_plan(STAGES, devices(*[1] * 5), 4, Constraints(cut=False))
    settings, calm = pipeline(8), replace(AT_ONCE, restart_s=2, snapshot_every=20)
    quiet = simulate(settings, plan, COSTS, calm, steps=2000)
    failing = replace(calm, failures_per_device_hour=30)
    troubled = simulate(settings, plan, COSTS, failing, steps=2000)
    assert simulate(settings, plan, COSTS, failing, steps=2000) == troubled
    assert simulate(settings, plan, COSTS, failing, steps=2000, seed=1) != troubled
    assert troubled.failures >= 3
    assert 0 < troubled.lost < 0.1
    each_s = (troubled.seconds - quiet.seconds) / troubled.failures
    assert 1.0 < each_s < 2 + 20 * 0.04 + 0.1
    assert quiet.lost == 0


# -- the command -------------------------------------------------------------------------------


def test_plan_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    small = ["image_size=16", "levels=1", "batch=8", "band_generator.width=8", "band_discriminator.width=8"]
    outcome = run_command(
        capsys, "plan", "smoke", "data=x", *small, "--nodes", "2xH100,1xT4:spot", "--simulate", "1..4", "--out",
        tmp_path / "plan",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    for words in ("image", "bottleneck: n", "expected: ", "estimated from counted work", "data-parallel training"):
        assert words in outcome.out
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert {part["device"] for part in plan["replicas"]} <= {"n1/H100.0", "n1/H100.1", "n2/T4.0"}
    points = json.loads((tmp_path / "plan" / "simulation.json").read_text())
    assert [point["devices"] for point in points] == [1, 1, 2, 2, 4, 4]
    assert (tmp_path / "plan" / "simulation.png").read_bytes().startswith(b"\x89PNG")


def test_plan_of_flow_experts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "plan"
    arguments = ("smoke", "data=x", *FLOW_OVERRIDES, "--nodes", "2*1xT4", "--out", out)
    outcome = run_command(capsys, "plan", *arguments)
    assert outcome.code == 0, outcome.err
    assert "2 flow experts in the order of the chain; there is no image stage" in outcome.out
    assert "discriminator" not in outcome.out
    assert "between stages: 0 kB" in outcome.out
    plan = json.loads((out / "plan.json").read_text())
    assert [stage["name"] for stage in plan["costs"]["stages"]] == ["LL1", "HL-LH-HH1"]
    assert plan["bytes_a_step"]["sub_images"] == plan["bytes_a_step"]["feedback"] == 0


def test_steps_of_flow_experts_are_measured() -> None:
    settings = run_settings(**FLOWS)
    measured = measure(settings, counted_work(settings))
    assert [stage.name for stage in measured.stages] == ["LL1", "HL-LH-HH1"]
    assert all(stage.seconds(settings.batch) > 0 for stage in measured.stages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nodes", "4xH10"], "no accelerator is called 'H10'"),
        (["--simulate", "1..8"], "give --out FOLDER"),
        (["--simulate", "8..1", "--out", "x"], "give a range of devices"),
    ],
)
def test_plan_refuses(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    outcome = run_command(capsys, "plan", "smoke", "data=x", *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_every_accelerator_has_sound_numbers() -> None:
    for name, kind in ACCELERATORS.items():
        assert kind.name == name
        assert 0 < kind.float32 <= kind.bfloat16 <= 5000
        assert GIB < kind.memory_bytes < 400 * GIB
