"""Waiting for results of Ray calls, and telling what an error among them means."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, RayActorError, RayError, RayTaskError

from cluster.data.quarantine import DamageFoundError, QuarantinedImage
from cluster.stages.process_group import GroupBrokenError
from freqgan.errors import FreqganError, RunError, first_line

ALIVE_TIMEOUT_S = 1.0
AGAIN_AFTER_S = 0.2
MOST_LOST_REPLIES = 20
REPLY_TIMEOUT_S = 2.0
"""For a reply to a call that is known to have been done."""
LOOK_EVERY_S = 1.0
Result = TypeVar("Result")


def wait_all(refs: list[Any], deadline_s: float | None, look: Callable[[], None] = lambda: None) -> list[Any]:
    """Return the values of ``refs``; an error among them is raised although others may never come.

    Args:
        refs: references to results.
        deadline_s: how long to wait; None is for ever.
        look: called every second of it.

    Raises:
        GetTimeoutError: they are not there after ``deadline_s``.

    """
    end_s = None if deadline_s is None else time.monotonic() + deadline_s
    while True:
        left_s = LOOK_EVERY_S if end_s is None else min(LOOK_EVERY_S, max(0.0, end_s - time.monotonic()))
        ready, waiting = ray.wait(refs, num_returns=len(refs), timeout=left_s)
        if not waiting:
            return list(ray.get(refs))
        ray.get(ready)
        look()
        if end_s is not None and time.monotonic() >= end_s:
            raise GetTimeoutError(f"{len(waiting)} results are not there after {deadline_s:g} s")


def retry_lost_calls(asks: Sequence[Callable[[], Any]], wait: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """Return the answers to calls that do no harm when made twice; those that are lost on the way are made again.

    Args:
        asks: make a call each and give its reference.
        wait: for references; raises the first error among them.

    """
    refs = [ask() for ask in asks]
    for _ in range(MOST_LOST_REPLIES):
        try:
            return wait(refs)
        except RayError as error:
            if not is_unavailable(error):
                raise
            time.sleep(AGAIN_AFTER_S)
            refs = [
                ask() if is_ready(ref) and is_unavailable(error_of(ref)) else ref
                for ask, ref in zip(asks, refs, strict=True)
            ]
    return wait(refs)


def translate_errors(action: Callable[[], Result]) -> Result:
    """Return what ``action`` does; raise Ray's errors as ours, with what happened inside the actor in front."""
    try:
        return action()
    except RayError as error:
        raise_as_ours(error)


def raise_as_ours(error: RayError) -> NoReturn:
    """Raise Ray's error as ours."""
    if isinstance(error, RayTaskError):
        if isinstance(error.cause, FreqganError):
            raise error.cause from error
        raise RunError(f"a stage failed: {error.cause or error}; its traceback is in Ray's logs") from error
    if isinstance(error, RayActorError):
        what = "could not be reached" if is_unavailable(error) else "died"
        raise RunError(
            f"an actor {what}: {first_line(error)}; run the same command again to resume from its checkpoint"
        ) from error
    raise RunError(f"Ray failed: {first_line(error)}; run the same command again to resume") from error


def is_alive(actor: Any) -> bool:
    """Return whether an actor answers, or is only slow to."""
    try:
        ray.get(actor.pid.remote(), timeout=ALIVE_TIMEOUT_S)
    except GetTimeoutError:
        return True
    except RayActorError:
        return False
    return True


def is_ready(ref: Any) -> bool:
    """Return whether there is a result, be it an error."""
    return bool(ray.wait([ref], timeout=0, fetch_local=False)[0])


def error_of(ref: Any) -> RayError | None:
    """Return the error that a result is; None where it is a value, or not there."""
    try:
        ray.get(ref, timeout=0)
    except GetTimeoutError:
        return None  # it is there, and on its way here
    except RayError as error:
        return error
    return None


def is_there(ref: Any) -> bool:
    """Return whether there is a value; wait a little for one that may be on its way."""
    return bool(ray.wait([ref], timeout=REPLY_TIMEOUT_S, fetch_local=False)[0]) and error_of(ref) is None


def is_broken_group(ref: Any) -> bool:
    """Return whether there is a result, and it is that other replicas could not be reached."""
    error = error_of(ref) if is_ready(ref) else None
    return isinstance(error, RayTaskError) and isinstance(error.cause, GroupBrokenError)


def damage_in(ref: Any) -> tuple[QuarantinedImage, ...]:
    """Return the images that are damaged for good, where a batch is nothing but the account of those."""
    error = error_of(ref) if is_ready(ref) else None
    cause = error.cause if isinstance(error, RayTaskError) else None
    return cause.found if isinstance(cause, DamageFoundError) else ()


def is_unavailable(error: RayError | None) -> bool:
    """Return whether a call or its reply was lost, be it that of a call whose result is an argument of this one."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, ActorUnavailableError)


def is_death(error: RayError) -> bool:
    """Return whether an actor died, be it that of the call or one that the call's arguments come from."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    return isinstance(cause, RayActorError) and not isinstance(cause, ActorUnavailableError)
