"""One component of a run: its logs as they grow, its checkpoints and its state. Where stages train together it is all.

Every look costs a few requests to storage, however long the training is.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections import deque
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from cluster.data.quarantine import QuarantinedImage, read_quarantine
from cluster.evaluation.background import Evaluation
from cluster.execution.failure_policy import Recovery
from cluster.run.checkpoint_listing import BestCheckpoint, best_checkpoint, candidates
from cluster.run.layout import CHECKPOINTS, LATEST, MANIFEST, checkpoint_path
from cluster.run.settings import RunSettings
from cluster.storage.folder import Folder
from freqgan.errors import InputError
from freqgan.model.needs import all_needs
from freqgan.model.stage_names import IMAGE_STAGE
from freqgan.setting_group import AS_STORED
from launch.live.curves import Curves
from launch.live.log_tail import LogTail
from launch.live.state import Signs, State, state_of
from launch.run_folder.evaluations import EVALUATION_LINES, EVALUATIONS
from launch.run_folder.failures import FAILURE_LINES, FAILURES, recovery_text
from launch.run_folder.layout import TRACEBACK
from launch.run_folder.metrics import METRICS, METRICS_LINES, MetricsLine
from launch.run_folder.run_state import RATE_STEPS, recent_rate

TIMELINE_STEPS = 8
FOREIGN = (TypeError, ValueError, AttributeError)
"""What lines of another program may lead to, whose values are not of the kind that they should be."""


class ComponentView:
    """What the folder of a component says, or of a run whose stages train together.

    Args:
        folder: of the component.
        name: of the component, "" for all stages.

    """

    def __init__(self, folder: Folder, name: str = "") -> None:
        self.folder, self.name = folder, name
        self.settings: RunSettings | None = None
        """Those of the run, for this component; None where they are not there."""
        self.checkpoint_settings: RunSettings | None = None
        """Those that the newest checkpoint was trained by."""
        self.curves = Curves()
        self.recent: deque[MetricsLine] = deque(maxlen=RATE_STEPS)
        self.failures: list[Recovery] = []
        self.evaluations: dict[int, Evaluation] = {}
        self.left_out: tuple[QuarantinedImage, ...] = ()
        self.state = State("new", "")
        self._checkpoints: list[dict[str, int]] = []
        self.best: BestCheckpoint | None = None
        self._latest: dict[str, Any] = {}
        self._latest_tag = ""
        self._line_age_s: float | None = None
        self._logs: tuple[LogTail[Any], ...] = (
            LogTail(folder, METRICS, METRICS_LINES, self._take_line, self._restart_metrics),
            LogTail(folder, EVALUATIONS, EVALUATION_LINES, self._take_evaluation, self.evaluations.clear),
            LogTail(folder, FAILURES, FAILURE_LINES, self._take_failure, self.failures.clear),
        )

    # -- reading -------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Read what has come since the last look.

        Raises:
            FreqganError: storage does not answer.

        """
        for log in self._logs:
            log.read()
        self._line_age_s = self.folder.age_s(METRICS) if self.recent else None
        self.left_out = read_quarantine(self.folder)
        root = self.folder.child(CHECKPOINTS)
        self._read_checkpoints(root)
        self.best = best_checkpoint(root)
        self.state = state_of(root, self._signs(), has_traceback=self.folder.exists(TRACEBACK))

    def _take_line(self, line: MetricsLine) -> None:
        with suppress(*FOREIGN):
            self.curves.add(line)
            self.recent.append(line)

    def _take_evaluation(self, evaluation: Evaluation) -> None:
        if is_sound(evaluation):
            self.evaluations[evaluation.step] = evaluation

    def _take_failure(self, failure: Recovery) -> None:
        with suppress(*FOREIGN):
            if recovery_text(failure):
                self.failures.append(failure)

    def _restart_metrics(self) -> None:
        self.curves.clear()
        self.recent.clear()

    def _read_checkpoints(self, root: Folder) -> None:
        """List the checkpoints anew where LATEST has moved."""
        stored = root.read_tagged(LATEST)
        tag = "" if stored is None else stored[1]
        if tag == self._latest_tag:
            return
        sizes = root.sizes()
        own = candidates(root, sizes)
        by_step: dict[int, int] = {}
        for name, size_bytes in sizes.items():
            step = name.partition("/")[0]
            if step.isdecimal():
                by_step[int(step)] = by_step.get(int(step), 0) + size_bytes
        steps = sorted({step for step, _ in own})
        self._checkpoints = [{"step": step, "size_bytes": by_step[step]} for step in steps]
        self._latest, self.checkpoint_settings = _parsed(stored), None
        if own:
            manifest = _parsed(root.read_tagged(checkpoint_path(*own[0], MANIFEST)))
            with suppress(ValidationError):
                self.checkpoint_settings = RunSettings.model_validate(manifest.get("settings"), context=AS_STORED)
        self._latest_tag = tag

    # -- telling -------------------------------------------------------------------------------

    @property
    def known_settings(self) -> RunSettings | None:
        """The settings that it is trained by: :attr:`settings`, or else those of its newest checkpoint."""
        return self.settings or self.checkpoint_settings

    @property
    def step(self) -> int:
        """How many steps are finished."""
        return self.recent[-1].step if self.recent else self.checkpoint_step

    @property
    def checkpoint_step(self) -> int:
        """The step of the newest checkpoint; 0 where there is none."""
        return self._checkpoints[-1]["step"] if self._checkpoints else 0

    @property
    def last_step(self) -> int | None:
        """The step at which it ends, as far as that is known."""
        if self.known_settings is None:
            return None
        return self.known_settings.model_copy(update={"max_steps": self._limit}).last_step

    @property
    def _limit(self) -> int | None:
        """The step to stop at: of a component that of whoever trained it last, who need not have begun the run."""
        known = self.checkpoint_settings if self.name and self.checkpoint_settings else self.known_settings
        return None if known is None else known.max_steps

    @property
    def rate(self) -> float | None:
        """Images per second over the last steps."""
        return recent_rate(list(self.recent)) if self.recent else None

    def _signs(self) -> Signs:
        lines = list(self.recent)
        steps, seconds = (lines[-1].step - lines[0].step, lines[-1].wall_s - lines[0].wall_s) if lines else (0, 0.0)
        step_s = seconds / steps if steps else (lines[-1].wall_s if lines else 0.0)
        every = 0 if self.known_settings is None or self.folder.is_local else self.known_settings.checkpoint_every
        return Signs(self.step, self.last_step, self.checkpoint_step, self._line_age_s, step_s, every * step_s)

    def facts(self) -> dict[str, Any]:
        """Return all but the curves and scores, as JSON has it."""
        batch = None if self.known_settings is None else self.known_settings.batch
        last, last_step = (self.recent[-1] if self.recent else None), self.last_step
        images = last.images if last is not None else self.checkpoint_step * (batch or 0)
        total = None if last_step is None or batch is None else last_step * batch
        rate = self.rate
        is_active = self.state.kind in ("trains", "waits")
        at_s = self._latest.get("at_s")
        return {
            "name": self.name,
            "state": asdict(self.state),
            "step": self.step,
            "last_step": last_step,
            "images": images,
            "total_images": total,
            "images_per_s": rate,
            "left_s": (total - images) / rate if is_active and total is not None and rate else None,
            "trained_s": None if last is None else last.wall_s,
            "line_age_s": self._line_age_s,
            "checkpoint_age_s": max(0.0, time.time() - at_s) if isinstance(at_s, int | float) else None,
            "checkpoints": self._checkpoint_facts(batch),
            "stages": self._stage_facts(),
            "window": None if self.known_settings is None else self.known_settings.window,
            "timeline": self._timeline(),
            "failures": self._failure_facts(batch),
        }

    def _checkpoint_facts(self, batch: int | None) -> list[dict[str, Any]]:
        best = None if self.best is None else self.best.step
        return [
            one | {"images": None if batch is None else one["step"] * batch, "is_best": one["step"] == best}
            for one in self._checkpoints
        ]

    def _stage_facts(self) -> list[dict[str, Any]]:
        """Return for every stage what a step takes and waits, as medians of the last steps, and from whom it takes."""
        if not self.recent:
            return []
        sources = {} if self.known_settings is None else _sources(self.known_settings)
        last = self.recent[-1].stages
        return [
            {
                "name": name,
                "seconds": self._median(name, "seconds"),
                "waited_s": self._median(name, "waited_s"),
                "takes_from": sources.get(name, []),
                "numbers": {key: x for key, x in own.items() if x == x and abs(x) != float("inf")},
            }
            for name, own in last.items()
        ]

    def _median(self, stage: str, key: str) -> float | None:
        values = [line.stages[stage][key] for line in self.recent if key in line.stages.get(stage, {})]
        return statistics.median(values) if values else None

    def _timeline(self) -> list[dict[str, Any]]:
        """Return when each stage began the last steps and how long they took; of the newest start of the run alone."""
        steps: list[dict[str, Any]] = []
        for line in list(self.recent)[: -TIMELINE_STEPS - 1 : -1]:
            spans = {name: [own.get("begun_s"), own.get("seconds")] for name, own in line.stages.items()}
            if any(None in span for span in spans.values()):
                break
            later = steps[-1]["spans"] if steps else {}
            if any(name in later and span[0] > later[name][0] for name, span in spans.items()):
                break
            steps.append({"step": line.step, "spans": spans})
        return steps[::-1]

    def _failure_facts(self, batch: int | None) -> list[dict[str, Any]]:
        return [
            {
                "component": self.name,
                "step": one.step,
                "images": None if batch is None else one.step * batch,
                "trained_s": self.curves.trained_s_at(one.step),
                "stages": list(one.stages),
                "decision": one.decision,
                "text": recovery_text(one),
            }
            for one in self.failures
        ]


def is_sound(evaluation: Evaluation) -> bool:
    """Return whether the values of ``evaluation`` are of the kind that they should be."""
    with suppress(*FOREIGN):
        return isinstance(evaluation.fit, float) and all(map(math.isfinite, evaluation.validation.values()))
    return False


def _sources(settings: RunSettings) -> dict[str, list[str]]:
    """Return from which stages each takes something in a step."""
    try:
        needs = all_needs(settings)
    except InputError:
        return {}
    return {name: [*own.outputs, *([IMAGE_STAGE] if own.feedback else [])] for name, own in needs.items()}


def _parsed(stored: tuple[bytes, str] | None) -> dict[str, Any]:
    """Return the object of JSON that is stored; {} where there is none, or it is anything else."""
    try:
        values = json.loads(stored[0]) if stored is not None else {}
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
