"""Whether a change to the code has changed the arithmetic of training: the digests of small trainings of every kind.

``python -m tests.campaigns.training_digests FILE`` (``make training-digests DIGESTS=FILE``) writes them to FILE, or,
where it is there, compares them with those in it and ends with 1 if one differs. Processors may round differently: the
two versions that are compared are to be run on one machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from tests.campaigns.every_transform import GREY_16, TWO_LEVELS, VARIANTS, write_grey_16_shards
from tests.support.companions import stage_values
from tests.support.runs import tiny_run_settings, trained, write_small_shards

KINDS: dict[str, dict[str, Any]] = {
    **VARIANTS,
    "ensembles": {"plan": {"cycles": 2, "low_gans": {1: 2}, "high_gans": {1: 4}}},
    "labels, joint high bands": {"classes": 2, "plan": {"high_gans": {1: 1, 2: 1}}, **TWO_LEVELS},
    "hinge": {"loss": {"kind": "hinge"}},
    "bfloat16": {"precision": "bfloat16"},
    "no bands": {"plan": {"bands": "none"}},
    "no feedback": {"feedback": {"weight": 0}},
    "random crops, two at a time": {"ingest": {"crop": "random", "shuffle_shards": 2}, "image_size": 12},
    "grey, 8 bits": {**GREY_16, "bit_depth": 8},
    "fusion, two levels, labels": {"system": "fusion", "loss": {"kind": "hinge"}, "classes": 2, **TWO_LEVELS},
    "companion: dcgan": {"image_stage": stage_values("dcgan")},
    "companion: vae, labels": {"image_stage": stage_values("vae"), "classes": 2},
    "companion: diffusion, per band": {"image_stage": stage_values("diffusion", alpha="per_band")},
    "companion: autoregressive alone": {"image_stage": stage_values("autoregressive"), "plan": {"bands": "none"}},
    "companion: flow alone, 16 bits": {"image_stage": stage_values("flow"), "plan": {"bands": "none"}, **GREY_16},
    "companion: flow_matching": {"image_stage": stage_values("flow_matching")},
    "ray": {"executor": "ray", "max_failures": 0},
    "ray, replicas": {"executor": "ray", "max_failures": 0, "replicas": {"HL1": 2}},
}  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """The digest after six steps of each kind; what a kind is refused for is told in its place."""
    small, grey = write_small_shards(folder), write_grey_16_shards(folder)
    result = {}
    for number, (name, changes) in enumerate(KINDS.items()):
        data = grey if changes.get("bit_depth") == 16 else small
        result[name] = trained(tiny_run_settings(folder / f"run{number}", data, **changes))[2]
        print(f"{name:34} {result[name][:16]}", flush=True)
    return result


def main(file: Path) -> int:
    """Writes or compares; 1 where a digest differs from the one in ``file``."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = digests(Path(folder))
    if not file.exists():
        file.write_text(json.dumps(ours, indent=1))
        print(f"{len(ours)} digests in {file}")
        return 0
    theirs = json.loads(file.read_text())
    differing = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    print(f"{len(ours.keys() & theirs.keys())} compared with {file}, different: {', '.join(differing) or 'none'}")
    return int(bool(differing))


if __name__ == "__main__":
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray is to listen on loopback alone
    sys.exit(main(Path(sys.argv[1])))
