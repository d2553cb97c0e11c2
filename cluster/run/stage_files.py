"""The state of one stage as files of a checkpoint, by what they are needed for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from cluster.run.layout import averages_file, counters_file, parse_rollback_file, state_file
from cluster.storage.checksummed_files import FileRecord
from freqgan.model.generators import AVERAGE

Read = Callable[[FileRecord], bytes]


def pack_stage(stage: str, tensors: Mapping[str, Tensor], counters: Mapping[str, int]) -> dict[str, bytes]:
    """Return the files of ``stage`` by name, without its state to go back to: averaged weights, live state, counters.

    ``tensors`` (...) are on the CPU and in C order; their names tell which of them are averages.
    """
    averages = {name: tensor for name, tensor in tensors.items() if name.startswith(f"{AVERAGE}.")}
    live = {name: tensor for name, tensor in tensors.items() if name not in averages}
    return {
        averages_file(stage): save_safetensors(averages),
        state_file(stage): save_safetensors(live),
        counters_file(stage): json.dumps(dict(counters), sort_keys=True).encode(),
    }


def read_tensors(stage: str, records: Sequence[FileRecord], read: Read) -> dict[str, Tensor]:
    """Return all tensors (...) of ``stage`` by name, from all of its files among ``records``.

    ``read`` gives the bytes of one file, and raises DamagedFileError.
    """
    names = {averages_file(stage), state_file(stage)}
    chosen = [record for record in records if _base(record) in names]
    rollback = rollback_record(stage, records)
    tensors: dict[str, Tensor] = {}
    for record in [*chosen, *([rollback] if rollback else [])]:
        tensors |= load_safetensors(read(record))
    return tensors


def rollback_record(stage: str, records: Sequence[FileRecord]) -> FileRecord | None:
    """Return the record of the state that ``stage`` goes back to; None where it is in a file with others."""
    return next((r for r in records if (parse_rollback_file(r.name) or ("", 0))[0] == stage), None)


def read_averages(stage: str, records: Sequence[FileRecord], read: Read) -> dict[str, Tensor]:
    """Return the averaged weights (...) of ``stage`` by name.

    Checkpoints of format 1 have them in one file with all the rest.
    """
    by_name = {_base(record): record for record in records}
    record = by_name.get(averages_file(stage)) or by_name[state_file(stage)]
    return {k: x for k, x in load_safetensors(read(record)).items() if k.startswith(f"{AVERAGE}.")}


def read_counters(stage: str, records: Sequence[FileRecord], read: Read) -> bytes:
    """Return the counters of ``stage`` as they are stored, JSON."""
    return read(next(record for record in records if _base(record) == counters_file(stage)))


def _base(record: FileRecord) -> str:
    return record.name.rpartition("/")[2]
