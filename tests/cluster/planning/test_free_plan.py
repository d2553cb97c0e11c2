"""Plans of runs at a free pace: what components take on devices of places, and what sharing a batch costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import pytest

from cluster.planning.data_parallel import BACKWARD_SHARE, Sharing, all_reduce_s
from cluster.planning.devices import CPU, GIB, Device
from cluster.planning.free_plan import ComponentRates, FreePlan, free_plan
from cluster.planning.offers import RESTART_S, Offer, PlaceSettings, by_type, offers_of
from cluster.planning.plan import Constraints
from cluster.planning.planner import best_plan
from cluster.planning.scaling import (
    data_parallel_images_per_s,
    free_images_per_s,
    grown,
    nodes_of,
    pipeline_images_per_s,
)
from cluster.planning.simulation import HOUR_S, Conditions, simulate
from cluster.planning.stage_cost import StageCost
from cluster.run.settings import RunSettings
from freqgan.errors import InputError
from tests.support.mixtures import FLOW_BELOW_GAN, FLOWS
from tests.support.models import TINY, tiny_settings

AT_ONCE = Conditions(link_bytes_per_s=1e15, latency_s=0, call_s=0)
LL, BAND = "LL1", "HL-LH-HH1"
COSTS = {LL: StageCost(LL, 0.0, 0.01), BAND: StageCost(BAND, 0.0, 0.03)}
PARAMETERS = {LL: 1000, BAND: 1000}
STEPS = 100


def free_settings(mixture: Mapping[str, object] = FLOWS, **changes: object) -> RunSettings:
    """Of a batch of 4 and 100 steps."""
    model = tiny_settings(**dict(mixture)).model_dump()
    return RunSettings.model_validate(model | {"data": "x", "device": "cpu", "pace": "free"} | changes)


def here(count: int, accelerator: str = "H100", memory_gib: int = 80) -> list[Offer]:
    return by_type("here", [Device("n", i, accelerator, 1.0, memory_gib * GIB) for i in range(count)])


def plan_of(settings: RunSettings, offers: list[Offer], conditions: Conditions = AT_ONCE,
            deadline_s: float = math.inf, *, cut: bool = False) -> FreePlan:  # fmt: skip
    return free_plan(ComponentRates(settings, COSTS, PARAMETERS, conditions, cut), offers, deadline_s)


# -- components ----------------------------------------------------------------------------------


def test_components_take_turns_on_one_device_and_none_waits_on_two() -> None:
    settings = free_settings()
    one, two = plan_of(settings, here(1)), plan_of(settings, here(2))
    assert one.schedule.end_s == pytest.approx(STEPS * 4 * (0.01 + 0.03))
    ends = {name: booking.end_s for name, booking in two.bookings.items()}
    assert ends == pytest.approx({LL: STEPS * 4 * 0.01, BAND: STEPS * 4 * 0.03})
    assert two.earliest_s == pytest.approx(two.schedule.end_s, rel=1e-4)


def test_every_component_sees_its_own_images() -> None:
    settings = free_settings(stage_images={LL: 2000})
    plan = plan_of(settings, here(2))
    assert plan.bookings[LL].end_s == pytest.approx(2000 * 0.01)
    assert plan.bookings[BAND].end_s == pytest.approx(400 * 0.03)
    island = plan_of(free_settings(only=[BAND]), here(2))
    assert list(island.bookings) == [BAND]


def test_faster_devices_get_the_longer_components() -> None:
    fast, slow = Device("n1", 0, "H100", 2.0, GIB), Device("n2", 0, "T4", 0.5, GIB)
    plan = plan_of(free_settings(), by_type("here", [slow, fast]))
    assert [plan.devices_of(plan.bookings[name]) for name in (BAND, LL)] == [[fast], [slow]]


def test_replicas_share_a_batch_where_devices_are_left() -> None:
    settings = free_settings()
    whole, cut = plan_of(settings, here(4)), plan_of(settings, here(4), cut=True)
    assert whole.schedule.end_s == pytest.approx(12.0)
    assert cut.bookings[BAND].way.devices == 4  # three would not divide a batch of four
    assert cut.schedule.end_s == pytest.approx(4.0)
    assert {booking.way.devices for booking in plan_of(settings, here(1), cut=True).bookings.values()} == {1}
    given = plan_of(free_settings(replicas={LL: 2}), here(3))
    assert given.bookings[LL].way.devices == 2
    assert given.bookings[LL].way.seconds == pytest.approx(2.0)


def test_cores_that_are_all_busy_slow_each_other_down() -> None:
    crowded = replace(AT_ONCE, contention=1.3)
    plan = plan_of(free_settings(), here(2, CPU), crowded)
    assert plan.bookings[BAND].end_s == pytest.approx(12.0 * 1.1)  # two of the four tasks at which it is 1.3
    assert plan_of(free_settings(), here(2), crowded).bookings[BAND].end_s == pytest.approx(12.0)


def test_stages_that_exchange_outputs_are_a_pipeline_of_their_own() -> None:
    settings = free_settings({**FLOW_BELOW_GAN, "feedback": {"lag": 8, "discriminator": TINY}})
    costs = {LL: StageCost(LL, 0.0, 0.01), "HL1": StageCost("HL1", 0.0, 0.02), "image": StageCost("image", 0.0, 0.03)}
    weights = dict.fromkeys(costs, 1000)
    plan = free_plan(ComponentRates(settings, costs, weights, AT_ONCE, cut=False), here(3))
    assert {part.stages for part in plan.components} == {(LL,), ("HL1", "image")}
    own = settings.by_component()["HL1"]
    pair = {name: costs[name] for name in ("HL1", "image")}
    (offer,) = here(2)
    alone = best_plan(own, list(pair.values()), offer.devices, weights, 1e15, Constraints(cut=False))
    rate = simulate(own, alone, pair, AT_ONCE, steps=100).images_per_s
    assert plan.bookings["HL1"].way.devices == 2
    assert plan.bookings["HL1"].way.seconds == pytest.approx(STEPS * 4 / rate)
    assert 1 / rate == pytest.approx(0.03)  # the image stage is the slowest, and nobody waits


def test_what_fits_nowhere_is_refused_with_its_size() -> None:
    large = {name: replace(cost, fixed_bytes=100 * GIB) for name, cost in COSTS.items()}
    with pytest.raises(InputError, match=r"no place can train LL1: 100 GiB .* a device has 80 GiB"):
        ComponentRates(free_settings(), large, PARAMETERS, AT_ONCE).jobs(here(2))
    with pytest.raises(InputError, match=r"on 2 devices, where .* 1 device of a type at most"):
        plan_of(free_settings(replicas={LL: 2}), here(1))


# -- places --------------------------------------------------------------------------------------


def test_spot_machines_take_longer_and_are_paid_while_they_run() -> None:
    (offer,) = offers_of({"far": PlaceSettings(nodes="1xT4:spot", price=0.5, available=0.8, interruptions=0.1)})
    settings = free_settings(checkpoint_every=50)
    (way,) = ComponentRates(settings, COSTS, PARAMETERS, AT_ONCE).jobs([offer])[1].ways
    running_s = 12.0 * (1 + 0.1 * (RESTART_S + 25 * 0.12) / HOUR_S)
    assert way.seconds == pytest.approx(running_s / 0.8)
    assert way.cost == pytest.approx(0.5 * running_s / HOUR_S)


def test_the_cheapest_places_that_are_in_time() -> None:
    hours = {"dear": PlaceSettings(nodes="1xH100", price=9.0), "cheap": PlaceSettings(nodes="2xH100", price=1.0)}
    offers = offers_of(hours)
    assert plan_of(free_settings(), offers, deadline_s=13.0).cost_by_place() == pytest.approx(
        {"dear": 0.0, "cheap": 16 / HOUR_S}
    )
    slow = [offers[0], replace(offers[1], devices=tuple(replace(d, speed=0.2) for d in offers[1].devices))]
    plan = plan_of(free_settings(), slow, deadline_s=25.0)
    assert {name: plan.place_of(booking) for name, booking in plan.bookings.items()} == {LL: "cheap", BAND: "dear"}
    assert plan.schedule.excess_s == 0
    assert plan_of(free_settings(), slow, deadline_s=61.0).cost_by_place()["dear"] == 0
    assert plan_of(free_settings(), slow, deadline_s=11.0).schedule.excess_s == pytest.approx(1.0 + 5.0)


def test_a_place_has_an_offer_for_each_type_with_nodes_of_its_name() -> None:
    offers = offers_of({"a": PlaceSettings(nodes="1xH100,2*1xT4", price={"H100": 2.0, "T4": 0.2}, from_hours=1)})
    assert [(one.accelerator, len(one.devices), one.price, one.from_s) for one in offers] == [
        ("H100", 1, 2.0, 3600), ("T4", 2, 0.2, 3600),
    ]  # fmt: skip
    assert [device.name for device in offers[1].devices] == ["a/n2/T4.0", "a/n3/T4.0"]


# -- sharing a batch -----------------------------------------------------------------------------


def test_gradients_are_added_up_in_a_ring_or_by_trees() -> None:
    assert all_reduce_s(1e6, 1, 1e6, 1.0) == 0
    assert all_reduce_s(1e6, 4, 1e6, 0.0) == pytest.approx(2 * 3 / 4)  # 2 (M - 1) / M of the bytes
    assert all_reduce_s(1e6, 4, 1e6, 0.01) == pytest.approx(2 * 3 / 4 + 6 * 0.01)
    assert all_reduce_s(1e6, 64, 1e6, 1.0) == pytest.approx(2 * 1 + 2 * 6 * 1.0)  # up and down six levels


def test_what_travels_during_the_backward_pass_costs_nothing() -> None:
    devices = [Device(f"n{i}", 0, "H100", 1.0, GIB) for i in range(4)]
    step = Sharing(tuple(COSTS.values()), 250_000, 8, 0, 1e6, 0.0, 0.0)
    compute_s = 2 * (0.01 + 0.03)  # two images of eight each
    assert step.step_s(devices) == pytest.approx(compute_s + 2 * 3 / 4 - BACKWARD_SHARE * compute_s)
    assert replace(step, link_bytes_per_s=1e9).step_s(devices) == pytest.approx(compute_s)
    assert step.step_s([replace(device, node="n") for device in devices]) == pytest.approx(compute_s)
    assert replace(step, call_s=0.1, link_bytes_per_s=1e9).step_s(devices) == pytest.approx(compute_s + 0.2)


def test_images_come_over_the_link_of_the_node() -> None:
    devices = [Device("n", i, "H100", 1.0, GIB) for i in range(2)]
    step = Sharing((COSTS[LL],), 1000, 8, 1000, 1e4, 0.0, 0.0)
    assert step.step_s(devices) == pytest.approx(8 * 1000 / 1e4)
    assert step.step_s(devices, readers=8) == pytest.approx(8 * 4 * 1000 / 1e4)


def test_all_networks_must_fit_into_every_device() -> None:
    costs = tuple(replace(cost, fixed_bytes=GIB, image_bytes=GIB // 2) for cost in COSTS.values())
    step = Sharing(costs, 1000, 4, 0, 1e9, 0.0, 0.0)
    assert not step.fits([Device("n", 0, "H100", 1.0, 3 * GIB)])
    assert step.fits([Device("n", i, "H100", 1.0, 3 * GIB) for i in range(2)])


def test_experts_apart_outrun_sharing_the_more_the_slower_the_links() -> None:
    device, weights = Device("n", 0, "H100", 1.0, 80 * GIB), dict.fromkeys(COSTS, 10**7)
    settings = free_settings()
    ratios = []
    for link in (1e8, 1e10):
        conditions = Conditions(link, 0.5e-3, 0.0)
        own, devices = grown(settings, 2, 64), nodes_of(device, 64)
        assert own.batch == 32 * settings.batch
        apart = free_images_per_s(own, COSTS, weights, devices, conditions)
        assert apart <= 64 / 0.04 * (1 + 1e-9)  # all the work over all devices
        ratios.append(apart / data_parallel_images_per_s(own, COSTS, weights, devices, conditions))
    assert ratios[0] > ratios[1] >= 0.7  # with fast links both have all devices busy
    assert free_images_per_s(settings, COSTS, weights, [device], AT_ONCE) == pytest.approx(1 / 0.04)
    assert data_parallel_images_per_s(settings, COSTS, weights, [device], AT_ONCE) == pytest.approx(1 / 0.04)


def test_a_pipeline_leaves_nodes_out_where_its_links_are_too_slow() -> None:
    settings = free_settings(FLOW_BELOW_GAN).model_copy(update={"pace": "together", "window": 1})
    costs = {name: StageCost(name, 0.0, 0.01) for name in (LL, "HL1", "image")}
    far = Conditions(1e9, 10.0, 0.0)
    device = Device("n", 0, "H100", 1.0, 80 * GIB)
    rates = [
        pipeline_images_per_s(settings, costs, dict.fromkeys(costs, 1000), nodes_of(device, count), far)
        for count in (8, 16)
    ]
    assert rates[1] >= rates[0] > 1


def test_what_does_not_fit_has_no_rate() -> None:
    settings = free_settings(FLOW_BELOW_GAN).model_copy(update={"pace": "together"})
    costs = {name: StageCost(name, 0.0, 0.01, 9 * GIB) for name in (LL, "HL1", "image")}
    small = [Device("n", 0, "H100", 1.0, 4 * GIB)]
    weights = dict.fromkeys(costs, 1000)
    assert pipeline_images_per_s(settings, costs, weights, small, AT_ONCE) == 0
    assert data_parallel_images_per_s(settings, costs, weights, small, AT_ONCE) == 0
    assert free_images_per_s(free_settings(FLOW_BELOW_GAN), costs, weights, small, AT_ONCE) == 0
