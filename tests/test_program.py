from __future__ import annotations

import pytest

from cluster.placement import Node, place
from cluster.program import stage_names, step_program
from freqgan.errors import InputError
from freqgan.plan import PlanSettings, build_plan


@pytest.mark.parametrize("cycles", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 3])
def test_every_input_exists_before_it_is_taken(levels: int, cycles: int) -> None:
    plan = build_plan(levels, PlanSettings(cycles=cycles))
    made: set[tuple[str, int]] = set()
    calls = step_program(plan)
    for call in calls:
        assert set(call.inputs) <= made
        made.add((call.stage, call.pass_number))
    assert [call.stage for call in calls if call.kind == "step"] == stage_names(plan)
    assert len(calls) == cycles * len(plan.gans) + 1


def test_the_ring_takes_later_gans_from_the_pass_before() -> None:
    calls = {(c.stage, c.pass_number): c for c in step_program(build_plan(1, PlanSettings(cycles=2)))}
    assert calls["HL1", 1].inputs == (("LL1", 1),)
    assert calls["HL1", 2].inputs == (("LL1", 2), ("LH1", 1), ("HH1", 1))
    assert calls["image", 2].inputs == (("LL1", 2), ("HL1", 2), ("LH1", 2), ("HH1", 2))


def test_placement_spreads_cost_over_processors() -> None:
    nodes = [Node("a", 2, 0), Node("b", 1, 0), Node("c", 1, 0)]
    costs = {f"s{i}": 1.0 for i in range(8)}
    seats = place(costs, nodes, use_gpus=False)
    counts = [sum(seat.node_id == n for seat in seats.values()) for n in "abc"]
    assert counts == [4, 2, 2]
    assert {seat.gpu_share for seat in seats.values()} == {0.0}


def test_placement_on_gpus_leaves_nodes_without_them_alone_and_shares_fit() -> None:
    nodes = [Node("a", 8, 2), Node("b", 64, 0), Node("c", 8, 1)]
    seats = place({f"s{i}": float(i + 1) for i in range(9)}, nodes, use_gpus=True)
    assert {seat.node_id for seat in seats.values()} == {"a", "c"}
    for node in (nodes[0], nodes[2]):
        shares = [seat.gpu_share for seat in seats.values() if seat.node_id == node.node_id]
        per_gpu = int(1 / shares[0] + 1e-3)
        assert len(shares) <= per_gpu * node.gpus
        assert all(0 < share * per_gpu <= 1 for share in shares)


def test_no_gpu_is_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match="no GPU in the cluster of 1 nodes: add a node, or set device=cpu"):
        place({"s": 1.0}, [Node("a", 8, 0)], use_gpus=True)
