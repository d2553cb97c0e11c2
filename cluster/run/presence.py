"""Whether what a command names is there at all: asked first, before anything that takes a while to load."""

from __future__ import annotations

from cluster.data.image_folders import is_zip
from cluster.data.shards import find_shards
from cluster.storage.folder import open_folder, split_object
from freqgan.errors import InputError


def check_model(run: str) -> None:
    """Raise InputError when there is no folder ``run``, a path or s3:// URL, to take generators from."""
    if not open_folder(run).is_there():
        raise InputError(f"{run} is not there: name the run folder of a training that has saved a checkpoint")


def check_run(run: str) -> None:
    """Raise InputError when there is no folder ``run``, a path or s3:// URL, of a training."""
    if not open_folder(run).is_there():
        raise no_run(run)


def check_registry(url: str) -> None:
    """Raise InputError when there is no folder ``url``, a path or s3:// URL, of the versions of a model."""
    folder = open_folder(url)
    if not folder.is_there():
        raise InputError(f"{folder.url} is not there: name <models>/<name> of a policy")


def no_run(run: str) -> InputError:
    """Return the error that ``run`` is no run, or not yet one."""
    return InputError(f"{run} holds no run: name the folder, or the s3:// URL, that a training was given as run=")


def check_images(source: str) -> None:
    """Raise InputError when ``source`` is neither a folder, of images or of a run, nor a zip."""
    if not is_zip(source) and not open_folder(source).is_there():
        raise InputError(f"{source} is not there: give the run folder of a training, or a folder or .zip of images")


def check_pictures(*sources: str) -> None:
    """Raise InputError when one of ``sources``, paths or s3:// URLs, is neither a file nor a folder."""
    for source in sources:
        if not open_folder(source).is_there():
            folder, name = split_object(source)
            if not folder.exists(name):
                raise InputError(f"there is no file or folder {source}: correct the path")


def check_data(*patterns: str, ask_buckets: bool = False) -> None:
    """Raise InputError, with all that is wrong, when one of ``patterns`` names no shards.

    Buckets are not asked, unless ``ask_buckets``: their readers list them anyway.
    """
    problems: list[str] = []
    for data in patterns:
        try:
            if not data:
                raise InputError("data: no shards are named; set data=<folder, glob or s3:// URL of WebDataset shards>")
            if ask_buckets or not data.startswith("s3://"):
                find_shards(data)
        except InputError as error:
            problems.append(str(error))
    if problems:
        raise InputError("; and ".join(problems))
