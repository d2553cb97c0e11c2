"""Which stage runs where: equal machines, weights, spares, refusals."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from cluster.planning.cost_model import counted_work, estimated
from cluster.planning.placement import Node, place
from cluster.planning.stage_cost import StageCost
from cluster.stages.replicas import StageReplica, replicas_of
from freqgan.errors import InputError
from tests.support.free_runs import free_settings

NAMES = [*(f"s{i}" for i in range(8)), "image"]
REPLICAS = {name: [StageReplica(name, 0, 1)] for name in NAMES}


def equal_costs(kind: str) -> list[StageCost]:
    return [StageCost(name, 0.001, 0.001 if kind == "H100" else 0.002) for name in NAMES]


def test_placement_spreads_cost_over_processors() -> None:
    nodes = [Node("a", "10.0.0.1", 3, 0), Node("b", "10.0.0.2", 2, 0), Node("c", "10.0.0.3", 4, 0)]
    slots = place(equal_costs, nodes, 32, use_gpus=False, replicas=REPLICAS)
    counts = [sum(slot.node_id == n for slot in slots.values()) for n in "abc"]
    assert counts == [3, 2, 4]
    assert {(slot.gpu, slot.gpu_share) for slot in slots.values()} == {(None, 0.0)}


def test_placement_on_one_machine_asks_for_no_costs() -> None:
    slots = place(lambda kind: pytest.fail(kind), [Node("a", "::1", 0.5, 0)], 32, use_gpus=False, replicas=REPLICAS)
    assert set(slots) == set(NAMES)


def test_placement_on_gpus_leaves_nodes_without_them_alone_and_shares_fit() -> None:
    nodes = [Node("a", "10.0.0.1", 8, 2, "H100"), Node("b", "10.0.0.2", 64, 0), Node("c", "10.0.0.3", 8, 1, "T4")]
    slots = place(equal_costs, nodes, 32, use_gpus=True, replicas=REPLICAS)
    assert {slot.node_id for slot in slots.values()} == {"a", "c"}
    by_gpu = Counter((slot.node_id, slot.gpu) for slot in slots.values())
    assert len(by_gpu) == 3
    for (node, gpu), count in by_gpu.items():
        shares = [slot.gpu_share for slot in slots.values() if (slot.node_id, slot.gpu) == (node, gpu)]
        assert sum(shares) <= 1
        assert sum(shares) > 1 - count / 10_000
    assert sum(count for (node, _), count in by_gpu.items() if node == "c") < 3  # half as fast: fewer stages


def test_replicas_of_one_stage_do_not_share_a_gpu() -> None:
    replicas = REPLICAS | {"s0": [StageReplica("s0", i, 3) for i in range(3)]}
    for gpus in (3, 4, 5):
        slots = place(equal_costs, [Node("a", "10.0.0.1", 8, gpus, "H100")], 30, use_gpus=True, replicas=replicas)
        assert len({slots[name].gpu for name in ("s0", "s0@1", "s0@2")}) == 3
    few = place(equal_costs, [Node("a", "10.0.0.1", 8, 2, "H100")], 30, use_gpus=True, replicas=replicas)
    assert set(few) == {*NAMES, "s0@1", "s0@2"}


def test_the_image_stage_stays_off_spot_machines_where_there_are_others() -> None:
    spot = [Node(f"s{i}", f"10.0.1.{i}", 0, 4, "H100", spot=True) for i in range(2)]
    steady = Node("head", "10.0.0.1", 0, 1, "T4")
    slots = place(equal_costs, [*spot, steady], 32, use_gpus=True, replicas=REPLICAS)
    assert slots["image"].node_id == "head"
    assert place(equal_costs, spot, 32, use_gpus=True, replicas=REPLICAS)["image"].node_id in {"s0", "s1"}


def test_no_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"no GPU in the cluster \(nodes: 1\): add a node, or set device=cpu"):
        place(equal_costs, [Node("a", "10.0.0.1", 8, 0)], 32, use_gpus=True, replicas=REPLICAS)


def test_the_stages_of_an_island_are_spread_over_its_machines(tmp_path: Path) -> None:
    bands = {"bands": ["LL1", "HL1", "HH1"]}
    settings = free_settings(tmp_path, tmp_path, plan=bands).model_copy(update={"only": ("LL1", "HL1")})
    work, nodes = counted_work(settings), [Node("a", "10.0.0.1", 1, 0), Node("b", "10.0.0.2", 1, 0)]
    slots = place(
        lambda kind: estimated(settings, work, kind), nodes, 8, use_gpus=False, replicas=replicas_of(settings)
    )
    assert {name: slot.node_id for name, slot in slots.items()} in ({"LL1": "a", "HL1": "b"}, {"LL1": "b", "HL1": "a"})
    assert counted_work(settings) == work  # from the cache
