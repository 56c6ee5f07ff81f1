"""What a section measured, for the terminal, for docs/performance.md and for JSON; and how things are timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What is asked of every section.

    Attributes:
        repetitions: None: what the section takes by default.
        shrink: sample counts are divided by it.
        fashion_mnist: folder of the four IDX files; None: synthetic images of the same size.
        folder: where pictures go; None: nowhere.
        device: "cpu" or "cuda", of the section that can be either.
    """

    repetitions: int | None = None
    shrink: int = 1
    fashion_mnist: Path | None = None
    folder: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of the repetitions."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        return Spread(statistics.median(values), min(values), max(values))

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


Cell = str | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells below headings.

    Attributes:
        about: what was run, and what a number means.
        columns: heading → format of its numbers.
        rows: one cell per column; None: does not apply.
        notes: what follows from it, computed from the rows.
    """

    about: str
    columns: dict[str, str]
    rows: list[list[Cell]]
    notes: tuple[str, ...] = ()

    def cells(self) -> list[list[str]]:
        return [[_text(cell, spec) for cell, spec in zip(row, self.columns.values(), strict=True)] for row in self.rows]

    def text(self) -> str:
        lines = [list(self.columns), *self.cells()]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        aligned = [
            "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
            for line in lines
        ]
        return "\n".join([self.about, "", *aligned, *self.notes])

    def markdown(self) -> str:
        rule = ["---", *["---:"] * (len(self.columns) - 1)]
        lines = [f"| {' | '.join(line)} |" for line in (list(self.columns), rule, *self.cells())]
        return "\n".join([self.about, "", *lines, *(f"\n{note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        rows = [[[c.median, c.low, c.high] if isinstance(c, Spread) else c for c in row] for row in self.rows]
        return {"about": self.about, "columns": self.columns, "rows": rows, "notes": list(self.notes)}

    @staticmethod
    def from_json(data: dict[str, Any]) -> Table:
        rows = [[Spread(*c) if isinstance(c, list) else c for c in row] for row in data["rows"]]
        return Table(data["about"], data["columns"], rows, tuple(data["notes"]))


def _text(cell: Cell, spec: str) -> str:
    return "–" if cell is None else cell if isinstance(cell, str) else format(cell, spec)


def in_turn(runs: Mapping[str, Callable[[], T]], repetitions: int, *, warm_up: bool = True) -> dict[str, list[T]]:
    """Every run once as a warm-up, then all of them one after the other, `repetitions` times over."""
    if warm_up:
        for run in runs.values():
            run()
    results: dict[str, list[T]] = {name: [] for name in runs}
    for _ in range(repetitions):
        for name, run in runs.items():
            results[name].append(run())
    return results


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(values: Sequence[float], floor: Sequence[float]) -> Spread:
    """Of what was measured side by side, repetition by repetition."""
    return Spread.of([value / base for value, base in zip(values, floor, strict=True)])
