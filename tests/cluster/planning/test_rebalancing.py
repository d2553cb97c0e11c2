"""Who moves when machines come or go."""

from __future__ import annotations

import pytest

from cluster.planning.placement import Node, Slot
from cluster.planning.rebalancing import rebalance
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica

NAMES = ("s0", "s1", "s2", "s3", "image")
MEMBERS = {name: [StageReplica(name, 0, 1)] for name in NAMES}


def costs(kind: str) -> list[StageCost]:
    return [StageCost(name, 0.0, 0.01 if kind == "T4" else 0.001) for name in NAMES]


def node(name: str, cpus: float = 2, gpus: float = 0, *, kind: str = "", spot: bool = False) -> Node:
    return Node(name, f"10.0.0.{ord(name[0])}", cpus, gpus, kind, spot)


def cores(**where: str) -> dict[str, Slot]:
    return {name: Slot(place, f"10.0.0.{ord(place)}", None, 0.0) for name, place in where.items()}


def gpus(**where: str) -> dict[str, Slot]:
    """ "a0" is GPU 0 of node a."""
    crowd = list(where.values())
    return {n: Slot(p[0], "x", int(p[1]), 1 / crowd.count(p)) for n, p in where.items()}


CROWDED = {"s0": "a", "s1": "a", "s2": "a", "s3": "a", "image": "a"}


def test_nobody_moves_without_a_reason() -> None:
    assert rebalance(cores(**CROWDED), costs, [node("a", 8)], 8, members=MEMBERS) == {}
    spread = CROWDED | {"s2": "b", "s3": "b"}
    assert rebalance(cores(**spread), costs, [node("a"), node("b")], 8, members=MEMBERS) == {}
    alone = dict(zip(NAMES, "abcde", strict=True))
    assert rebalance(cores(**alone), costs, [node(x) for x in "abcdef"], 8, members=MEMBERS) == {}


def test_a_new_machine_takes_as_many_as_it_is_worth() -> None:
    found = rebalance(cores(**CROWDED), costs, [node("a"), node("b")], 8, members=MEMBERS)
    assert found is not None
    assert len(found) == 2  # three on one and two on the other is as even as it gets
    assert {seat.node_id for seat in found.values()} == {"b"}
    assert {seat.address for seat in found.values()} == {node("b").address}
    many = rebalance(cores(**CROWDED), costs, [node("a", 1), node("b", 4)], 8, members=MEMBERS)
    assert many is not None
    assert len(many) == 4


def test_those_on_a_machine_that_goes_have_to_move_and_the_others_stay() -> None:
    found = rebalance(
        cores(**CROWDED | {"s1": "b", "image": "b"}), costs, [node("a", 8), node("c")], 8, members=MEMBERS
    )
    assert found is not None
    assert set(found) == {"s1", "image"}
    assert "b" not in {seat.node_id for seat in found.values()}


def test_the_image_stage_keeps_off_spot_machines_where_it_can() -> None:
    seats = cores(**CROWDED | {"image": "b"})
    found = rebalance(seats, costs, [node("a"), node("c", 64, spot=True)], 8, members=MEMBERS)
    assert found is not None
    assert found["image"].node_id == "a"
    only = rebalance(seats, costs, [node("c", spot=True)], 8, members=MEMBERS)
    assert only is not None
    assert only["image"].node_id == "c"


def test_gpus_take_newcomers_only_when_they_are_free() -> None:
    seats = gpus(s0="a0", s1="a0", s2="a1", s3="a1", image="b0")
    assert rebalance(seats, costs, [node("a", gpus=2)], 8, members=MEMBERS) is None  # image has nowhere to go
    found = rebalance(seats, costs, [node("a", gpus=2), node("c", gpus=1)], 8, members=MEMBERS)
    assert found is not None
    assert (found["image"].node_id, found["image"].gpu) == ("c", 0)
    assert all((seat.node_id, seat.gpu) == ("c", 0) for seat in found.values())
    grown = rebalance(seats, costs, [node("a", gpus=2), node("b", gpus=1), node("c", gpus=2)], 8, members=MEMBERS)
    assert grown is not None
    assert len(grown) == 2
    assert {seat.gpu_share for seat in grown.values()} == {1.0}
    assert len({(seat.node_id, seat.gpu) for seat in grown.values()}) == 2


def test_a_slow_gpu_is_no_gain() -> None:
    seats = gpus(s0="a0", s1="a0", s2="a0", s3="a0", image="a0")
    mixed = [node("a", gpus=1, kind="H100"), node("b", gpus=1, kind="T4")]
    assert rebalance(seats, costs, mixed, 8, members=MEMBERS) == {}


@pytest.mark.parametrize("count", [2, 3])
def test_replicas_do_not_move_together(count: int) -> None:
    members = MEMBERS | {"s0": [StageReplica("s0", i, count) for i in range(count)]}
    names = [member.name for member in members["s0"]]
    seats = cores(**dict.fromkeys(names, "z"), **{n: "a" for n in NAMES if n != "s0"})
    found = rebalance(seats, costs, [node(x, 1) for x in "abcd"], 6, members=members)
    assert found is not None
    assert len({found[name].node_id for name in names}) == count
