"""The weights of VGG19 from a file of the user's, whatever stands in that file.

torchvision's official file is in the format of PyTorch before 1.6, a pickle. It is read by an unpickler of torch's own
that knows tensors and containers alone (``weights_only``): code in a file is refused, not run.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cluster.storage.folder import split_object
from freqgan.errors import InputError, first_line
from freqgan.networks.vgg import Pooling, Vgg19

OFFICIAL = {"dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44": "vgg19-dcbb9e9d.pth of torchvision"}
"""Known files by their sha256."""
REMEDY = "give torchvision's vgg19-dcbb9e9d.pth, or a safetensors file with the same names"
CHUNK_BYTES = 2**20


def load_vgg19(url: str, note: Callable[[str], None], pooling: Pooling = "max") -> Vgg19:
    """Return VGG19 with the weights in the file ``url``, a path or s3:// URL: .pth or safetensors.

    ``note`` is told whether it is a file that is known, by its sha256.

    Raises:
        InputError: no such file, one that is cut off or no file of weights, with code in it, or of another network.

    """
    with _local_file(url) as path:
        note(origin_text(url, _sha256(path)))
        weights = _read_safetensors(path, url) if _is_safetensors(path) else _read_pickle(path, url)
        return Vgg19(_tensors(weights, url), pooling, url)


def origin_text(url: str, sha256: str) -> str:
    """Return a sentence that says which file ``url`` is."""
    if sha256 in OFFICIAL:
        return f"{url} is {OFFICIAL[sha256]}"
    return f"{url} is no file that is known (sha256 {sha256}): its weights are used as they are"


@contextmanager
def _local_file(url: str) -> Iterator[Path]:
    """Yield a path to read the object from: of a bucket a copy, gone afterwards."""
    folder, name = split_object(url)
    with folder.open(name):  # an error that names it if it is not there, or is a folder
        pass
    if folder.is_local:
        yield Path(folder.url) / name
        return
    with TemporaryDirectory(prefix="freqgan-vgg-") as temporary:
        path = Path(temporary) / "weights"
        folder.download(name, path)
        yield path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _is_safetensors(path: Path) -> bool:
    """Return whether it begins as one: the length of a header, and JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path, url: str) -> object:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{url} is a safetensors file that is damaged or cut off ({error}): get it anew") from error


def _read_pickle(path: Path, url: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that torch has not written: they are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # The rest of torch's message advises to run what the file holds.
        objects = re.search(r"GLOBAL `?([\w.]+)", str(error))
        what = f"holds objects of Python ({objects[1]}), not tensors alone" if objects else "is no file of weights"
        raise InputError(f"{url} {what}; nothing of it was run; {REMEDY}") from error
    # torch.load raises EOFError, RuntimeError, ValueError, KeyError, struct.error and more for a damaged file.
    except Exception as error:
        reason = f" ({first_line(error).partition('. ')[0]})" if isinstance(error, RuntimeError) else ""
        raise InputError(f"{url} is no file of weights, or it is cut off{reason}; {REMEDY}") from error


def _tensors(weights: object, url: str) -> Mapping[str, Tensor]:
    """Return the tensors that ``weights`` names; InputError where it is anything else."""
    if not isinstance(weights, Mapping):
        raise InputError(f"{url} holds {type(weights).__name__}, not tensors by their names; {REMEDY}")
    tensors = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    return {name: x for name, x in tensors.items() if x.layout == torch.strided and x.device.type == "cpu"}
