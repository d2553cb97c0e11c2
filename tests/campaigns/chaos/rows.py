"""A line of the campaign's table: what one kind of fault has done."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field

HEADER = f"{'fault':12} {'moments':>7} {'right digests':>13} {'lost s: median':>14} {'worst':>6}  note"


@dataclass
class Row:
    """``digests`` of so many ``runs`` were those of a quiet run; ``wrong`` says what did not hold."""

    fault: str
    moments: int = 0
    runs: int = 0
    digests: int = 0
    lost_s: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    took_s: float = 0.0

    @property
    def holds(self) -> bool:
        return self.runs > 0 and self.digests == self.runs and not self.wrong

    def compare(self, digest: str, quiet: str) -> None:
        """Counts a run that is over."""
        self.runs += 1
        self.digests += digest == quiet

    def text(self) -> str:
        lost = (
            f"{statistics.median(self.lost_s):14.1f} {max(self.lost_s):6.1f}" if self.lost_s else f"{'-':>14} {'-':>6}"
        )
        right = f"{self.digests}/{self.runs}"
        notes = "; ".join([*self.notes, *(f"WRONG: {text}" for text in self.wrong), f"took {self.took_s:.0f} s"])
        return f"{self.fault:12} {self.moments:7} {right:>13} {lost}  {notes}"

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Row:
        return cls(**json.loads(text))
