"""The published protocols of docs/data/protocols.yaml, and runs of them: several processes, each run once."""

import contextlib
import functools
import io
import math
import multiprocessing
import sys
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lifelong.config.schema import ConfigError

DATA = Path(__file__).resolve().parents[2] / "docs" / "data"
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")
BOUNDS = ("finetune", "joint")
"""No strength to choose."""


@dataclass(frozen=True)
class Protocol:
    """A published protocol on some data.

    Attributes:
        overrides: of train.py, but for method, strength and seed.
        penalties: further ones of the methods that have a penalty.
        choose: further ones while strengths are chosen.
        published: method → final average accuracy in percent, on the source's own data set.
        reason: why our numbers on this data may fall short of those; "" where nobody has said.
    """

    name: str
    data: str
    title: str
    data_title: str
    overrides: tuple[str, ...]
    penalties: tuple[str, ...]
    choose: tuple[str, ...]
    published: dict[str, float]
    source: str
    reason: str

    @property
    def run_name(self) -> str:
        return f"results/{self.name}/{self.data}"


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
    return Protocol(
        name,
        data,
        entry["title"],
        source["title"],
        (*entry["overrides"], *source["overrides"]),
        tuple(entry.get("penalties", ())),
        tuple(entry["choose"]),
        entry["published"],
        entry["source"],
        entry["reason"].get(data, ""),
    )


@dataclass(frozen=True)
class Outcome:
    """A finished run's metrics, or what it failed of ("" if it did not)."""

    run_id: str
    metrics: dict[str, Any]
    failed: str = ""


def run_id_of(overrides: Sequence[str]) -> str:
    """The name of the run's folder; nothing is trained."""
    from lifelong.config.schema import folded
    from lifelong.experiment.errors import composed
    from lifelong.runs.identity import identifier

    return identifier(folded(composed(overrides)))


def one_run(overrides: Sequence[str]) -> Outcome:
    """Train, or answer from the run folder; a run that diverges or whose penalty does nothing is an outcome, too."""
    import lifelong
    from lifelong.methods.guards import PenaltyError, StabilityWarning
    from lifelong.tracking import DivergedError

    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore", StabilityWarning)  # what comes of it is the outcome
            metrics = dict(lifelong.run(*overrides).metrics)
            return Outcome(metrics["run_id"], metrics)
    except (DivergedError, PenaltyError) as error:
        return Outcome(run_id_of(overrides), {}, f"{type(error).__name__}: {' '.join(str(error).split())}")


def all_runs(commands: Iterable[Sequence[str]], jobs: int) -> list[Outcome]:
    """The outcome of each command in their order, `jobs` at a time; each is said on stderr when it is there."""
    commands = [tuple(command) for command in commands]
    if jobs == 1:
        return [said(command, one_run(command)) for command in commands]
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [said(*pair) for pair in zip(commands, pool.map(one_run, commands), strict=True)]


def said(command: Sequence[str], outcome: Outcome) -> Outcome:
    own = " ".join(
        part for part in command if part.startswith(("method", "seed", "memory", "dataset.order", "scenario"))
    )
    metrics = outcome.metrics
    came = outcome.failed or f"validation {percent(metrics['val_average_accuracy'])}, {seconds(metrics):.0f} s"
    print(f"{own}: {came}", file=sys.stderr, flush=True)
    return outcome


def percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def seconds(metrics: dict[str, Any]) -> float:
    """Wall time of a run, all phases."""
    return sum(value for key, value in metrics.items() if key.endswith("_seconds"))
