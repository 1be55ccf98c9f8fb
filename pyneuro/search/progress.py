"""What a search says while it runs: the plan before, a bar with time left and patched runs per second, on standard
error."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm


@dataclass
class Progress:
    """A bar over work in the evaluator's own unit, so that the time left is right although late layers are cheap."""

    shown: bool
    _bar: Any = None
    _runs: int = 0
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def asked(cls, shown: bool | None) -> Progress:
        """As asked for; None: when standard error is a terminal."""
        return cls(sys.stderr.isatty() if shown is None else shown)

    def say(self, text: str) -> None:
        """Print a line."""
        if self.shown:
            print(text, file=sys.stderr, flush=True)

    def start(self, total: float, done: float) -> None:
        """Open the bar, `done` of `total` being there already."""
        self._started = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=done,
            disable=not self.shown,
            bar_format="{percentage:5.1f} % |{bar:24}| {elapsed} gone, {remaining} left{postfix}",
            mininterval=0.5,
        )

    def advance(self, work: float, runs: int) -> None:
        """Some work was done, this many patched runs."""
        self._runs += runs
        elapsed = time.monotonic() - self._started
        if elapsed > 0:
            self._bar.set_postfix_str(f"{self._runs / elapsed:,.0f} patched runs/s", refresh=False)
        self._bar.update(work)

    def close(self) -> None:
        """Close the bar; call at any end."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """A length of time for people: "42 s", "7 min 5 s", "3 h 20 min", "9 d 4 h"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, name, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // smaller} {small}"
    raise AssertionError
