"""``freqgan retrain POLICY.yaml``: trains on what is new, and puts the result in use only if it is good enough.

Every step leaves a record before the next begins, and does no harm when it is done again: killed at any point, the next
run of the same policy goes on from there. Versions are numbered; an attempt has the number of the version that will
come of it, and pins what it is trained on.
"""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from cluster.data.shard_index import read_index
from cluster.data.shards import Shard
from cluster.evaluation.evaluate import check_real, evaluate_checkpoint
from cluster.run.checkpoint import Checkpoint
from cluster.run.checkpoints import find_checkpoint, has_checkpoints
from cluster.run.data_source import open_source
from cluster.run.model_record import Attempt, GateRow, Lineage, PinnedShard, TrainingData, Verdict, read_record
from cluster.run.model_registry import ModelRegistry, Version
from cluster.run.settings import RunSettings
from cluster.storage.folder import open_folder
from cluster.storage.lease import HeldError, Lease
from cluster.training.warm_start import begin_from, shape_of
from freqgan import __version__
from freqgan.errors import InputError
from freqgan.metrics.catalogue import HIGH_IS_GOOD
from launch.commands.train import run_training
from launch.console.exit_codes import STOPPED_EXIT_CODE
from launch.pages.retraining import ANNOUNCED, summarise, write_summary
from launch.settings.load import validate_settings
from launch.settings.policy import Policy

ATTEMPT = "attempt.json"
EVALUATION_SEED = 0
WEBHOOK_TIMEOUT_S = 20
Say = Callable[[str], None]


def retrain(policy: Policy, say: Say, note: Say, address: str | None = None) -> int:
    """Run ``policy`` once; return the exit code: 0 whatever came of it, 75 when a signal stopped the training.

    Args:
        policy: what to do.
        say: gets lines about what was done, for people and logs.
        note: gets details.
        address: of a Ray cluster to train in, as for ``freqgan train``.

    Raises:
        InputError: storage that cannot be used, data without an index, a model whose files are damaged, settings that
            do not go together.
        RunError: the training failed; the next run of the policy resumes it.

    """
    policy.webhook_url()  # a variable that is missing must be noticed before hours of training
    store = ModelRegistry(policy.url)
    with ExitStack() as stack:
        try:
            lease = stack.enter_context(store.lease(note))
        except HeldError as error:
            say(f"nothing to do: {error}")
            return 0
        return _Retraining(policy, store, lease, say, note, address).run()


@dataclass(frozen=True)
class _Retraining:
    """One run of a policy, with the lease held."""

    policy: Policy
    store: ModelRegistry
    lease: Lease
    say: Say
    note: Say
    address: str | None

    def run(self) -> int:
        newest = self.store.newest()
        if newest is not None:
            self._conclude(newest)
        attempt = self._unfinished(newest) or self._begin(newest)
        if attempt is None:
            return 0
        if (code := self._train(attempt)) != 0:
            return code
        self._conclude(self._finish(attempt))
        return 0

    # -- what is to be done --------------------------------------------------------------------

    def _unfinished(self, newest: Version | None) -> Attempt | None:
        """Return the attempt that a run before this one began and did not finish."""
        number = newest.number + 1 if newest else 1
        folder = self.store.attempt(number)
        if not folder.exists(ATTEMPT):
            return None
        remedy = f"delete it, and version {number} is begun anew"
        attempt = read_record(Attempt, folder.read(ATTEMPT), f"{folder.url}/{ATTEMPT}", remedy)
        there = {(one.shard, one.sha256) for one in self._shards()}
        if gone := [one.shard for one in attempt.shards if (one.shard, one.sha256) not in there]:
            self.note(
                f"version {number} was begun on shards that are gone or replaced ({', '.join(gone)}): begins anew"
            )
            folder.child("run").delete_tree()
            folder.delete(ATTEMPT)  # last: without it nothing would tell whose the rest is
            return None
        self.say(f"goes on with version {number}, begun {_ago(attempt.begun_at_s)} ago")
        return attempt

    def _begin(self, newest: Version | None) -> Attempt | None:
        """Pin data and settings of a new attempt; return None where there is nothing new."""
        shards = self._shards()
        before = {(one.shard, one.sha256) for one in newest.record.data.shards} if newest else set()
        new = sum(one.samples for one in shards if (one.shard, one.sha256) not in before)
        if newest is not None and new < self.policy.min_new_images:
            self._note_unindexed(shards)
            self.say(
                f"nothing to do: {new} new images since version {newest.number}, and {self.policy.min_new_images} "
                "are wanted"
            )
            return None
        number = newest.number + 1 if newest else 1
        current = self.store.current()
        names = ",".join(one.shard.removesuffix(".tar") for one in shards)
        data = f"{open_folder(self.policy.data).url}/{{{names}}}.tar"
        folder = self.store.attempt(number)
        settings = self.policy.run_settings(folder.child("run").url, data, is_first=current is None)
        attempt = Attempt(
            number=number,
            begun_at_s=time.time(),
            begins_with=current.number if current else None,
            shards=tuple(shards),
            new_images=new,
            settings=settings.model_dump(mode="json"),
        )
        check_real(self.policy.held_out, settings, self.policy.count)
        folder.write(ATTEMPT, json.dumps(attempt.values(), indent=1).encode())
        begins = f"begins with version {current.number}" if current else "begins from nothing"
        self.say(f"version {number}: {new} new images of {sum(one.samples for one in shards)}; {begins}")
        return attempt

    def _note_unindexed(self, shards: list[PinnedShard]) -> None:
        """Name shards that somebody may have forgotten to index."""
        names = {name for name in open_folder(self.policy.data).files() if name.endswith(".tar")}
        if unseen := sorted(names - {one.shard for one in shards}):
            self.note(
                f"{len(unseen)} shards of {self.policy.data} are not in its index ({unseen[0]} ...), so they are not "
                f"seen: run `freqgan shards index {self.policy.data}`"
            )

    def _shards(self) -> list[PinnedShard]:
        """Return the shards that the index of the data names; a listing could show one that is half written."""
        folder = open_folder(self.policy.data)
        index: dict[str, Shard] = read_index(folder)
        if not index:
            raise InputError(
                f"data: {folder.url} has no index.json that names shards; run `freqgan shards index {self.policy.data}`"
            )
        unknown = [name for name, shard in index.items() if shard.sha256 is None]
        if unknown:
            raise InputError(f"data: the index of {folder.url} has no sha256 of {unknown[0]}: index it again")
        return [
            PinnedShard(shard=name, sha256=str(index[name].sha256), samples=len(index[name].samples))
            for name in sorted(index)
        ]

    # -- training ------------------------------------------------------------------------------

    def _train(self, attempt: Attempt) -> int:
        settings = validate_settings(attempt.settings, stored=True)
        if attempt.begins_with is not None and not has_checkpoints(settings.run):
            self._warm_start(settings, self.store.version(attempt.begins_with).checkpoint())
        code = run_training(settings, self.address)
        if code == STOPPED_EXIT_CODE:
            self.say("stopped; the same command goes on from there")
        return code

    def _warm_start(self, settings: RunSettings, model: Checkpoint) -> None:
        ours, theirs = shape_of(settings), shape_of(model.settings)
        differing = sorted(key for key in ours if ours[key] != theirs[key])
        if differing:
            self.note(f"the policy's networks are not those of the current model ({', '.join(differing)}): begins anew")
            return
        begin_from(settings, open_source(settings), model)

    # -- judging -------------------------------------------------------------------------------

    def _finish(self, attempt: Attempt) -> Version:
        """Measure the candidate beside the model in use, and store it with the verdict."""
        settings = validate_settings(attempt.settings, stored=True)
        candidate = find_checkpoint(settings.run)
        scores, rival = self._scores(candidate, f"version {attempt.number}"), None
        if (before := attempt.begins_with) is not None:
            rival = self._scores(self.store.version(before).checkpoint(), f"version {before}")
        data = TrainingData(
            url=open_folder(self.policy.data).url,
            shards=attempt.shards,
            images=sum(one.samples for one in attempt.shards),
            new_images=attempt.new_images,
        )
        lineage = Lineage(
            name=self.policy.name,
            begins_with=before,
            begun_at_s=attempt.begun_at_s,
            code=__version__,
            data=data,
            settings=candidate.settings.model_dump(mode="json"),
            step=candidate.step,
            images=candidate.images,
            digest=candidate.digest(),
            held_out=self.policy.held_out,
            scores=scores,
            verdict=judge(self.policy.gate, scores, rival),
        )
        version = self.store.add(attempt.number, candidate, lineage)
        self.say(f"version {version.number} is stored in {version.folder.url}")
        return version

    def _scores(self, checkpoint: Checkpoint, whose: str) -> dict[str, float]:
        def note(text: str) -> None:
            self.note(f"{whose}: {text}")

        measured = evaluate_checkpoint(
            checkpoint,
            self.policy.held_out,
            count=self.policy.count,
            seed=EVALUATION_SEED,
            note=note,
            learned=self.policy.learned,
        )
        return {name: score.value for name, score in measured["image"].items()}

    def _conclude(self, version: Version) -> None:
        """Do what comes after a version is stored; what was done of it before is not done again."""
        verdict, current = version.record.verdict, self.store.current()
        was_in_use = any(move.version == version.number for move in current.log) if current else False
        if verdict.holds and not was_in_use:
            why = "the gate holds" if version.record.begins_with else "there was none to compare with"
            self.store.promote(version.number, self.lease, f"promoted: {why}")
            self.say(f"version {version.number} is now in use")
        elif not verdict.holds and not version.folder.exists(ANNOUNCED):
            self.say(f"version {version.number} is not put in use: it is too much worse in {', '.join(verdict.failed)}")
        if not version.folder.exists(ANNOUNCED):
            write_summary(version)
            self._announce(version)
            version.folder.write(ANNOUNCED, b"")
            for number in self.store.prune(self.policy.keep):
                self.note(f"version {number} is older than the {self.policy.keep} that are kept, and was deleted")

    def _announce(self, version: Version) -> None:
        """Send the outcome to the webhook; one that cannot be reached costs the model nothing."""
        url = self.policy.webhook_url()
        if not url:
            return
        body = json.dumps(summarise(version)).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):  # a URL of the policy's
                pass
        except (urllib.error.URLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            self.note(f"webhook: it could not be told ({reason}); the version stands all the same")


def judge(gate: dict[str, float], scores: dict[str, float], rival: dict[str, float] | None) -> Verdict:
    """Return whether a candidate is good enough beside the model in use, metric by metric; without one it is.

    Args:
        gate: how much worse a candidate may be, as a share, by metric.
        scores: of the candidate.
        rival: scores of the model in use; None where there is none.

    Raises:
        InputError: a metric of the gate was not measured.

    """
    rows = []
    for metric, margin in gate.items():
        if metric not in scores:
            raise InputError(f"gate: {metric!r} was not measured; measured are {', '.join(scores)}")
        value, other = scores[metric], rival[metric] if rival else None
        known = other is not None and math.isfinite(other)  # nothing can be worse than a model without a score
        bound = other * (1 - margin if metric in HIGH_IS_GOOD else 1 + margin) if other is not None and known else None
        if bound is None:
            holds = math.isfinite(value)
        else:
            holds = value >= bound if metric in HIGH_IS_GOOD else value <= bound
        rows.append(GateRow(metric=metric, candidate=value, current=other, bound=bound, holds=holds))
    return Verdict(holds=all(row.holds for row in rows), rows=tuple(rows))


def _ago(at_s: float) -> str:
    minutes = max(0.0, time.time() - at_s) / 60
    return f"{minutes / 60:.1f} h" if minutes > 90 else f"{minutes:.0f} min"
