"""The published protocols of docs/data/protocols.yaml, and commands of train.py that run them."""

import copy
import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import composed
from lifelong.runs.identity import setting

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data"
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")
BOUNDS = ("finetune", "joint")
"""No strength to choose."""
PUBLISHED_ON = "mnist"
"""The data of every published number."""
RECALLED = "rec"
"""Of a published number that was recalled, and seen nowhere: it is not shown."""


@dataclass(frozen=True)
class Published:
    """A published final average accuracy, in percent.

    Attributes:
        spread: nan where the source prints none.
        kind: what `spread` is, the standard deviation of `n` runs (std; population std: divided by n, not n − 1) or the
            standard error of their mean (sem).
    """

    value: float
    spread: float
    kind: str
    n: int

    @property
    def sem(self) -> float:
        if self.kind == "sem":
            return self.spread
        return self.spread / (self.n - 1 if self.kind == "population std" else self.n) ** 0.5


@dataclass(frozen=True)
class Protocol:
    """A protocol on some data.

    Attributes:
        overrides: of train.py, but for method, strength and seed.
        choose: further ones while strengths are chosen.
        rows: further ones of single rows of the table, run besides METHODS; method=… where the row's name is none.
        published: of the rows that the source has; empty on other data than its own, and without what was recalled.
        given: the rows that the source has.
        family: the column of the page of all methods that these runs fill; "" if no paper's protocol.
    """

    name: str
    data: str
    data_title: str
    title: str
    overrides: list[str]
    choose: list[str]
    source: str = ""
    rows: dict[str, list[str]] = field(default_factory=dict)
    published: dict[str, Published] = field(default_factory=dict)
    given: tuple[str, ...] = ()
    family: str = ""

    def rows_of(self, compat: str) -> list[str]:
        """As published those of the source between the bounds; right: all methods, at strengths that are chosen."""
        if compat == "published":
            return [row for row in self.every if row in (*self.given, *BOUNDS)]
        return [row for row in self.every if not any(o.startswith("method.strength=") for o in self.rows.get(row, ()))]

    @property
    def every(self) -> list[str]:
        """The rows of both columns, joint the last."""
        return [*(row for row in dict.fromkeys([*METHODS, *self.rows]) if row != "joint"), "joint"]

    def method(self, row: str) -> str:
        chosen = (o.removeprefix("method=") for o in self.rows.get(row, ()) if o.startswith("method="))
        return next(chosen, row)

    def of_row(self, row: str, compat: str, strength: float | None = None) -> list[str]:
        """Overrides of a row at a strength, None: at the one that it is composed with."""
        own = [override for override in self.rows.get(row, ()) if not override.startswith("method=")]
        column = [f"compat={compat}"] if self.source else []
        at = [] if strength is None else [f"method.strength={strength!r}"]
        return [*self.overrides, *column, f"method={self.method(row)}", *own, *at]

    def place(self, row: str, compat: str) -> str:
        """The name of its runs. A row without a strength that is the same in both columns is run once."""
        both = default_strength(self.method(row)) is None and compat == "right" and self._same(row)
        return f"results/{self.name}/{self.data}/{'published' if both else compat}/{row}"

    def _same(self, row: str) -> bool:
        published, right = (setting(composition(tuple(self.of_row(row, compat)))) for compat in ("published", "right"))
        return bool(self.source) and published == right


@functools.cache
def composition(arguments: tuple[str, ...]) -> DictConfig:
    """The configuration of these overrides; not to be changed."""
    config: DictConfig = composed(arguments)
    return config


def with_seed(arguments: Sequence[str], seed: int, strength: float | None = None) -> DictConfig:
    """The configuration of a run at a seed and, unless None, at a strength: composed once for all of them."""
    config = copy.deepcopy(composition(tuple(arguments)))
    config.seed = seed
    if strength is not None:
        config.method.strength = strength
    return config


@functools.cache
def default_strength(method: str) -> float | None:
    """Of the method's yaml; None for a method that has no strength."""
    strength = yaml.safe_load((CONFIGS / "method" / f"{method}.yaml").read_text(encoding="utf-8")).get("strength")
    return None if strength is None else float(strength)


@functools.cache
def read_protocols() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DATA / "protocols.yaml").read_text(encoding="utf-8"))
    return loaded


def protocol(name: str, data: str) -> Protocol:
    """Raises ConfigError if there is no such protocol or data."""
    known = read_protocols()
    for kind, key in (("protocols", name), ("sources", data)):
        if key not in known[kind]:
            raise ConfigError(f"{kind[:-1]} must be one of {', '.join(known[kind])}, got {key!r}")
    entry, source = known["protocols"][name], known["sources"][data]
    cells, given = entry.get("cells", {}), entry.get("published", {})
    rest = {key: entry[key] for key in ("title", "source", "rows", "family") if key in entry}
    return Protocol(
        name,
        data,
        source["title"],
        overrides=[*entry["overrides"], *source["overrides"]],
        choose=entry.get("choose", []),
        published={r: cell for r, value in given.items() if data == PUBLISHED_ON and (cell := _cell(value, cells))},
        given=tuple(given),
        **rest,
    )


def _cell(given: list[float] | dict[str, Any] | None, cells: dict[str, Any]) -> Published | None:
    """None of a row that the source has no number of here, or that was recalled alone."""
    if given is None:
        return None
    values = dict(zip(("value", "spread"), given, strict=False)) if isinstance(given, list) else given
    told = {"spread": float("nan"), **cells, **values}
    return None if told.pop("seen") == RECALLED else Published(**told)


def sweep(overrides: Sequence[str], jobs: int, *, stacked: bool = False) -> list[str]:
    """The arguments of train.py for a sweep, `jobs` runs at a time; stacked: all in one process, those that can be."""
    launcher = ["hydra/launcher=parallel", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    launcher = ["hydra/launcher=stacked", "hydra.launcher.n_jobs=1"] if stacked else launcher
    return ["--multirun", *overrides, "logger=none", "progress=false", *launcher]


def command_line(arguments: Sequence[str]) -> str:
    """The command of train.py, as one types it in the checkout."""
    return "PYTHONPATH=scripts " * _needs_scripts(arguments) + shlex.join(["python", "train.py", *arguments])


def _needs_scripts(arguments: Sequence[str]) -> bool:
    """Whether it takes a method of scripts/ablated.py."""
    return any(argument == "trusted=[ablated]" for argument in arguments)


def launch(commands: Sequence[Sequence[str]], *, run: bool, jobs: int, stacked: bool) -> None:
    """Print each sweep; run: and run it, of stacked ones, a process each, `jobs` at a time. A sweep goes on when a run
    diverges: its folder says so. Raises ConfigError for `jobs` < 1."""
    if jobs < 1:
        raise ConfigError(f"--jobs must be an integer >= 1, got {jobs}")
    own_methods = {"PYTHONPATH": os.pathsep.join(filter(None, ["scripts", os.environ.get("PYTHONPATH")]))}

    def launched(command: Sequence[str]) -> None:
        print(command_line(command), flush=True)
        if run:
            environment = os.environ | (own_methods if _needs_scripts(command) else {})
            subprocess.run([sys.executable, "train.py", *command], check=False, cwd=ROOT, env=environment)

    with ThreadPoolExecutor(jobs if run and stacked else 1) as pool:
        list(pool.map(launched, commands))
