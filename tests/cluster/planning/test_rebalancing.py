"""Who moves when machines come or go."""

from __future__ import annotations

import pytest

from cluster.planning.placement import Node, Slot
from cluster.planning.rebalancing import rebalance
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica

NAMES = ("s0", "s1", "s2", "s3", "image")
REPLICAS = {name: [StageReplica(name, 0, 1)] for name in NAMES}


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
    assert rebalance(cores(**CROWDED), costs, [node("a", 8)], 8, replicas=REPLICAS) == {}
    spread = CROWDED | {"s2": "b", "s3": "b"}
    assert rebalance(cores(**spread), costs, [node("a"), node("b")], 8, replicas=REPLICAS) == {}
    alone = dict(zip(NAMES, "abcde", strict=True))
    assert rebalance(cores(**alone), costs, [node(x) for x in "abcdef"], 8, replicas=REPLICAS) == {}


def test_a_new_machine_takes_as_many_as_it_is_worth() -> None:
    moved = rebalance(cores(**CROWDED), costs, [node("a"), node("b")], 8, replicas=REPLICAS)
    assert moved is not None
    assert len(moved) == 2  # three on one and two on the other is as even as it gets
    assert {slot.node_id for slot in moved.values()} == {"b"}
    assert {slot.address for slot in moved.values()} == {node("b").address}
    many = rebalance(cores(**CROWDED), costs, [node("a", 1), node("b", 4)], 8, replicas=REPLICAS)
    assert many is not None
    assert len(many) == 4


def test_those_on_a_machine_that_goes_have_to_move_and_the_others_stay() -> None:
    moved = rebalance(
        cores(**CROWDED | {"s1": "b", "image": "b"}), costs, [node("a", 8), node("c")], 8, replicas=REPLICAS
    )
    assert moved is not None
    assert set(moved) == {"s1", "image"}
    assert "b" not in {slot.node_id for slot in moved.values()}


def test_the_image_stage_keeps_off_spot_machines_where_it_can() -> None:
    slots = cores(**CROWDED | {"image": "b"})
    moved = rebalance(slots, costs, [node("a"), node("c", 64, spot=True)], 8, replicas=REPLICAS)
    assert moved is not None
    assert moved["image"].node_id == "a"
    only = rebalance(slots, costs, [node("c", spot=True)], 8, replicas=REPLICAS)
    assert only is not None
    assert only["image"].node_id == "c"


def test_gpus_take_newcomers_only_when_they_are_free() -> None:
    slots = gpus(s0="a0", s1="a0", s2="a1", s3="a1", image="b0")
    assert rebalance(slots, costs, [node("a", gpus=2)], 8, replicas=REPLICAS) is None  # image has nowhere to go
    moved = rebalance(slots, costs, [node("a", gpus=2), node("c", gpus=1)], 8, replicas=REPLICAS)
    assert moved is not None
    assert (moved["image"].node_id, moved["image"].gpu) == ("c", 0)
    assert all((slot.node_id, slot.gpu) == ("c", 0) for slot in moved.values())
    grown = rebalance(slots, costs, [node("a", gpus=2), node("b", gpus=1), node("c", gpus=2)], 8, replicas=REPLICAS)
    assert grown is not None
    assert len(grown) == 2
    assert {slot.gpu_share for slot in grown.values()} == {1.0}
    assert len({(slot.node_id, slot.gpu) for slot in grown.values()}) == 2


def test_a_slow_gpu_is_no_gain() -> None:
    slots = gpus(s0="a0", s1="a0", s2="a0", s3="a0", image="a0")
    mixed = [node("a", gpus=1, kind="H100"), node("b", gpus=1, kind="T4")]
    assert rebalance(slots, costs, mixed, 8, replicas=REPLICAS) == {}


@pytest.mark.parametrize("count", [2, 3])
def test_replicas_do_not_move_together(count: int) -> None:
    replicas = REPLICAS | {"s0": [StageReplica("s0", i, count) for i in range(count)]}
    names = [replica.name for replica in replicas["s0"]]
    slots = cores(**dict.fromkeys(names, "z"), **{n: "a" for n in NAMES if n != "s0"})
    moved = rebalance(slots, costs, [node(x, 1) for x in "abcd"], 6, replicas=replicas)
    assert moved is not None
    assert len({moved[name].node_id for name in names}) == count
