"""How a run does, of either pace, from its folder or bucket alone; the answers of the live view before they are HTTP.

Nothing is asked of the training, which may be on another machine, or over. However many look at once, storage is read
at most once in a few seconds.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from threading import Lock
from typing import Any

from cluster.data.quarantine import reasons_text
from cluster.evaluation.background import Evaluation
from cluster.run.checkpoint_listing import best_checkpoint
from cluster.run.layout import CHECKPOINTS, COMPONENTS, CURRENT
from cluster.run.settings import RunSettings
from cluster.run.shared_record import SharedRecord, read_shared_record
from cluster.storage.folder import open_folder
from freqgan.errors import FreqganError, InputError, counted, first_line
from freqgan.metrics.catalogue import is_accuracy
from freqgan.model.components import components
from launch.console.text import experts_text, form_text
from launch.live.component_view import ComponentView, is_sound
from launch.live.log_tail import LogTail
from launch.live.state import State, joint_state
from launch.run_folder.evaluations import EVALUATION_LINES, EVALUATIONS
from launch.run_folder.layout import CONFIG, SAMPLES, TRACEBACK, grid_name
from launch.run_folder.metrics import alphas_of
from launch.settings.load import validate_settings
from launch.settings.yaml_text import parse_yaml

REFRESH_S, BUCKET_REFRESH_S = 1.0, 10.0
"""Seconds for which what was read is good: requests to buckets cost money."""
THREADS = 8
MOST_EVALUATIONS, MOST_FAILURES, MOST_LEFT_OUT, MOST_CLASSES = 500, 200, 20, 20
TRACEBACK_BYTES = 64 * 2**10
_GRID = re.compile(r"(\d+)\.(png|webp)")
_USER = re.compile(r"(?<=://)[^/\s@'\"]+(?=@)")
_SECRET = re.compile(r"^(\s*[\w-]*(?:password|passwd|secret|token|api_?key)[\w-]*\s*:).*$", re.I | re.M)


class RunView:
    """Answers what the page of a run shows.

    Args:
        run: its folder, a path or s3:// URL.
        refresh_s: seconds for which what was read is good.

    Raises:
        InputError: ``run`` is the folder of a retrained model, in which many runs are.

    """

    def __init__(self, run: str, refresh_s: float | None = None) -> None:
        self.folder = open_folder(run)
        self.run = run
        if self.folder.exists(CURRENT):
            raise InputError(
                f"{run} is a retrained model and no run: name the run of one of its attempts, {run}/attempts/NUMBER/run"
            )
        usual_s = REFRESH_S if self.folder.is_local else BUCKET_REFRESH_S
        self._refresh_s = usual_s if refresh_s is None else refresh_s
        self._lock = Lock()
        self._read_at_s = -math.inf
        self._fault = ""
        self._settings: RunSettings | None = None
        self._settings_text, self._settings_fault = "", ""
        self._shared: SharedRecord | None = None
        self._components = [ComponentView(self.folder)]
        self._evaluations: dict[int, Evaluation] = {}
        self._whole_log: LogTail[Evaluation] | None = None
        self._grids: dict[int, int] = {}
        self._playing: frozenset[int] = frozenset()
        self._traceback = ""

    def has_begun(self) -> bool:
        """Return whether a training has written anything there."""
        return self.folder.exists(CONFIG) or any(
            self.folder.child(name).is_there() for name in (COMPONENTS, CHECKPOINTS)
        )

    # -- answers -------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return state, progress, stages, checkpoints, failures: all but curves, scores and settings."""
        with self._lock:
            self._refresh()
            return self._facts()

    def metrics(self, after: str | None = None) -> dict[str, Any]:
        """Return the curves of every component, as :meth:`Curves.answer` does.

        ``after`` is the ``cursor`` of an earlier answer.
        """
        with self._lock:
            self._refresh()
            cursors = (after or "").split("-")
            cursors += [""] * len(self._components)
            answers = [one.curves.answer(cursor) for one, cursor in zip(self._components, cursors, strict=False)]
            parts = [{"name": one.name, **own} for one, own in zip(self._components, answers, strict=True)]
            return {"cursor": "-".join(answer["cursor"] for answer in answers), "components": parts}

    def scores(self) -> dict[str, Any]:
        """Return scores of checkpoints, and losses on held-out images by stage as [images, loss]."""
        with self._lock:
            self._refresh()
            evaluations = _thinned([one for one in self._all_evaluations() if one.has_pictures])
            return {"evaluations": [_evaluation_facts(one) for one in evaluations], "held_out": self._held_out()}

    def settings(self) -> dict[str, Any]:
        """Return the settings of the run as YAML, without users, passwords and keys, and what is wrong with them."""
        with self._lock:
            self._refresh()
            return {"yaml": without_secrets(self._settings_text), "fault": self._settings_fault}

    def sample(self, images: int, kind: str = "png") -> bytes:
        """Return the grid, a PNG or of clips a WebP that plays, of the checkpoint that has seen ``images`` images.

        Raises:
            InputError: there is none.

        """
        name = grid_name(images, kind)
        stored = self.folder.read_tagged(name)
        if stored is None:
            raise InputError(f"{self.folder.url} has no {name}: ask for one that `samples` of /run/facts names")
        return stored[0]

    # -- reading -------------------------------------------------------------------------------

    def _refresh(self) -> None:
        """Read what has changed, unless that was done a moment ago. A storage that fails leaves what was known."""
        if time.monotonic() - self._read_at_s < self._refresh_s:
            return
        try:
            self._read()
            self._fault = ""
        except FreqganError as error:
            self._fault = first_line(error)
        self._read_at_s = time.monotonic()

    def _read(self) -> None:
        self._read_settings()
        if self._shared is None:
            self._shared = read_shared_record(self.folder.child(COMPONENTS))
            if self._shared is not None:
                self._become_free(self._shared)
        if self._whole_log is not None:
            self._whole_log.read()
        if self._shared is None:
            self._components[0].settings = self._settings
        if len(self._components) == 1:
            self._components[0].refresh()
        else:
            with ThreadPoolExecutor(1 if self.folder.is_local else THREADS) as pool:
                list(pool.map(ComponentView.refresh, self._components))
        self._read_grids()
        stored = self.folder.read_tagged(TRACEBACK)
        self._traceback = "" if stored is None else stored[0][-TRACEBACK_BYTES:].decode("utf-8", "replace")

    @property
    def _known_settings(self) -> RunSettings | None:
        """The settings in the folder of the run; without those, that of its newest checkpoint."""
        return self._settings or self._components[0].known_settings

    def _read_settings(self) -> None:
        stored = self.folder.read_tagged(CONFIG)
        text = "" if stored is None else stored[0].decode("utf-8", "replace")
        if text == self._settings_text:
            return
        self._settings_text, self._settings_fault = text, ""
        try:
            self._settings = validate_settings(parse_yaml(text, f"{self.folder.url}/{CONFIG}"), stored=True)
        except (FreqganError, ValueError, AttributeError) as error:  # what somebody has changed says nothing of the run
            self._settings, self._settings_fault = None, first_line(error)

    def _become_free(self, record: SharedRecord) -> None:
        """Show the components of a run at a free pace."""
        whole = validate_settings(record.settings, stored=True)
        folder = self.folder.child(COMPONENTS)
        self._components = []
        for part in components(whole):
            one = ComponentView(folder.child(part.name), part.name)
            one.settings = whole.of_component(part)
            self._components.append(one)
        self._whole_log = LogTail(
            self.folder, EVALUATIONS, EVALUATION_LINES, self._take_evaluation, self._evaluations.clear
        )
        if self._settings is None:
            self._settings = whole

    def _take_evaluation(self, evaluation: Evaluation) -> None:
        if is_sound(evaluation):
            self._evaluations[evaluation.step] = evaluation

    def _read_grids(self) -> None:
        """List the grids by images seen, with their size in bytes, and those that have an animation."""
        sizes = self.folder.child(SAMPLES).sizes()
        names = sorted((int(match[1]), match[2], sizes[match[0]]) for match in map(_GRID.fullmatch, sizes) if match)
        self._grids = {images: size for images, kind, size in names if kind == "png"}
        self._playing = frozenset(images for images, kind, _ in names if kind == "webp")

    # -- telling -------------------------------------------------------------------------------

    def _facts(self) -> dict[str, Any]:
        own = [one.facts() for one in self._components]
        failures = [failure for facts in own for failure in facts.pop("failures")]
        ages = [facts["line_age_s"] for facts in own if facts["line_age_s"] is not None]
        left = [facts["left_s"] for facts in own if facts["left_s"] is not None]
        rates = [facts["images_per_s"] for facts in own if facts["state"]["kind"] == "trains"]
        return {
            "run": self.folder.url,
            "name": self.folder.url.rstrip("/").rpartition("/")[2],
            "is_free": self._shared is not None,
            "in_bucket": not self.folder.is_local,
            "refresh_s": self._refresh_s,
            "state": asdict(self._state()),
            "images": _total(own, "images"),
            "total_images": _total(own, "total_images"),
            "images_per_s": min((rate for rate in rates if rate is not None), default=own[0]["images_per_s"]),
            "left_s": max(left, default=None),
            "trained_s": max((facts["trained_s"] for facts in own if facts["trained_s"] is not None), default=None),
            "line_age_s": min(ages, default=None),
            "summary": self._summary(),
            "classes": [] if self._shared is None else list(self._shared.classes[:MOST_CLASSES]),
            "components": own,
            "alphas": self._alphas(),
            "samples": self._sample_facts(),
            "best": self._best_facts(),
            "failures": failures[-MOST_FAILURES:],
            "failures_total": len(failures),
            "left_out": self._left_out_facts(),
            "scores_tag": self._scores_tag(),
            "settings_tag": hashlib.sha256(self._settings_text.encode()).hexdigest()[:16],
            "traceback": self._traceback,
            "fault": self._fault,
        }

    def _state(self) -> State:
        if self._shared is None:
            return self._components[0].state
        return joint_state([one.state for one in self._components], has_traceback=bool(self._traceback))

    def _summary(self) -> list[tuple[str, str]]:
        """Return what is trained, as (name, text)."""
        settings = self._known_settings
        if settings is None:
            return []
        facts = [
            ("images" if settings.frames == 1 else "clips", form_text(settings)),
            ("system", settings.system if settings.system == "fusion" or settings.band_plan().gans else "single"),
            ("experts", experts_text(settings)),
            ("transform", f"{settings.transform}, {counted(settings.levels, 'level')}"),
            ("batch", f"{settings.batch:,}"),
            ("pace", settings.pace),
            ("executor", settings.executor),
        ]
        if settings.conditioning.kinds:
            facts.append(("shown", ", ".join(settings.conditioning.kinds)))
        if settings.conditioning.run:
            facts.append(("follows the images of", settings.conditioning.run))
        return [(name, without_secrets(text)) for name, text in facts]

    def _alphas(self) -> dict[str, list[str]]:
        """Return by stage the names of its numbers that are weights of a blend."""
        names = {
            stage: list(alphas_of(numbers)) for one in self._components if one.recent
            for stage, numbers in one.recent[-1].stages.items()
        }  # fmt: skip
        return {stage: own for stage, own in names.items() if own}

    def _sample_facts(self) -> list[dict[str, Any]]:
        settings = self._known_settings
        batch = None if settings is None else settings.batch
        return [
            {
                "images": images,
                "step": None if batch is None else -(-images // batch),
                "size_bytes": size,
                "plays": images in self._playing,
            }
            for images, size in self._grids.items()
        ]

    def _best_facts(self) -> dict[str, Any] | None:
        """Return the step of the best checkpoint, and how many times as far from real images as these are."""
        if self._shared is None:
            best = self._components[0].best
        else:
            best = best_checkpoint(self.folder.child(COMPONENTS))
        return None if best is None else {"step": best.step, "fit": _finite(best.fit), "yardstick": best.yardstick}

    def _left_out_facts(self) -> dict[str, Any]:
        images = list({image.key: image for one in self._components for image in one.left_out}.values())
        named = [{"shard": image.shard, "member": image.member, "reason": image.reason} for image in images]
        return {"count": len(images), "text": reasons_text(images), "images": named[:MOST_LEFT_OUT]}

    def _all_evaluations(self) -> list[Evaluation]:
        """Return the evaluations of the whole model, in the order of steps."""
        by_step = self._evaluations if self._shared is not None else self._components[0].evaluations
        return [by_step[step] for step in sorted(by_step)]

    def _held_out(self) -> dict[str, list[list[float]]]:
        logs = [self._evaluations, *(one.evaluations for one in self._components)]
        losses: dict[str, list[list[float]]] = {}
        for by_step in logs:
            for step in sorted(by_step):
                for name, loss in by_step[step].validation.items():
                    losses.setdefault(name, []).append([by_step[step].images, loss])
        return {name: _thinned(own) for name, own in losses.items()}

    def _scores_tag(self) -> str:
        """Return a text that is another one whenever :meth:`scores` is."""
        logs: list[dict[int, Evaluation]] = [self._evaluations, *(one.evaluations for one in self._components)]
        return "-".join(f"{len(by_step)}.{max(by_step, default=0)}" for by_step in logs)


def begun_run(run: str) -> RunView:
    """Return the view of ``run``, for ``freqgan serve --live``; InputError where it is no folder of a training."""
    view = RunView(run)
    if not view.has_begun():
        raise InputError(f"--live: {run} is no folder of a training, which could be shown: leave --live out")
    return view


def without_secrets(text: str) -> str:
    """Return ``text`` without users and passwords in addresses, and without values of keys that sound like secrets.

    Settings refuse them; a file that somebody has edited may have them all the same.
    """
    return _SECRET.sub(r"\1 '***'", _USER.sub("***", text))


def _evaluation_facts(evaluation: Evaluation) -> dict[str, Any]:
    scores = {
        name: [_finite(score.get("value")), _finite(score.get("floor"))]
        for name, score in evaluation.scores.items() if not is_accuracy(name)
    }  # fmt: skip
    return {
        "step": evaluation.step,
        "images": evaluation.images,
        "fit": _finite(evaluation.fit),
        "yardstick": evaluation.yardstick,
        "collapse": evaluation.collapse,
        "scores": scores,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _thinned(values: Sequence[Any]) -> list[Any]:
    """Return MOST_EVALUATIONS of ``values`` at most, evenly, with the last."""
    apart = -(-len(values) // MOST_EVALUATIONS) or 1
    return list(values[::-1][::apart][::-1])


def _total(parts: Sequence[dict[str, Any]], key: str) -> int | None:
    """Return the sum of ``key`` over components; None where one is not known."""
    values = [part[key] for part in parts]
    return None if None in values else sum(values)
