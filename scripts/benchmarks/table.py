"""What a section measured, as Markdown; and how things are timed."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from pandas import DataFrame

from studies.pages import markdown

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What is asked of every section; repetitions None: what it takes by default; sample counts are divided by shrink.

    fashion_mnist: folder of the four IDX files; None: synthetic images. device: "cpu" or "cuda".
    """

    repetitions: int | None = None
    shrink: int = 1
    fashion_mnist: Path | None = None
    device: str = "cpu"


class Spread(NamedTuple):
    """Median, lowest and highest of the repetitions."""

    median: float
    low: float
    high: float

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}}–{self.high:{spec}})"


Cell = str | float | Spread | None


@dataclass(frozen=True)
class Table:
    """Rows of cells, None: does not apply; columns: heading → format of its numbers; about, note: above and below."""

    about: str
    columns: dict[str, str]
    rows: list[list[Cell]]
    note: str = ""

    def markdown(self) -> str:
        """The text above, the table and the text below."""
        specs = self.columns.values()
        cells = [[_text(cell, spec) for cell, spec in zip(row, specs, strict=True)] for row in self.rows]
        table = markdown(DataFrame(cells, columns=list(self.columns)))
        return "\n\n".join(filter(None, (self.about, table, self.note)))


def _text(cell: Cell, spec: str) -> str:
    return "–" if cell is None else cell if isinstance(cell, str) else format(cell, spec)


def in_turn(runs: Mapping[str, Callable[[], T]], repetitions: int, *, warm_up: bool = True) -> dict[str, list[T]]:
    """Every run once as a warm-up, then all of them one after the other, `repetitions` times over."""
    if warm_up:
        for run in runs.values():
            run()
    turns = [{name: run() for name, run in runs.items()} for _ in range(repetitions)]
    return {name: [turn[name] for turn in turns] for name in runs}


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def ratio(values: Sequence[float], floor: Sequence[float]) -> Spread:
    """Of what was measured side by side, repetition by repetition."""
    return spread([value / base for value, base in zip(values, floor, strict=True)])
