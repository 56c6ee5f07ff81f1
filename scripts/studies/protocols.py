"""The published protocols of docs/data/protocols.yaml, and commands of train.py that run them."""

import functools
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "data"
METHODS = ("finetune", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp", "joint")
BOUNDS = ("finetune", "joint")
"""No strength to choose."""


@dataclass(frozen=True)
class Protocol:
    """A published protocol on some data.

    Attributes:
        overrides: of train.py, but for method, strength and seed.
        penalties: further ones of the methods that have a penalty.
        own: further ones of single methods; those named here are run besides METHODS.
        choose: further ones while strengths are chosen.
        published: method → final average accuracy in percent, on the source's own data set.
    """

    name: str
    data: str
    data_title: str
    overrides: list[str]
    choose: list[str]
    published: dict[str, float]
    source: str
    penalties: list[str] = field(default_factory=list)
    own: dict[str, list[str]] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys([*METHODS, *self.own]))

    @property
    def run_name(self) -> str:
        return f"results/{self.name}/{self.data}"

    def of_method(self, method: str, strength: float | None = None) -> list[str]:
        """Overrides of a method at a strength, None: at its default."""
        held = () if method in BOUNDS else self.penalties
        at = [] if strength is None or default_strength(method) is None else [f"method.strength={strength!r}"]
        return [*self.overrides, f"method={method}", *held, *self.own.get(method, ()), *at]


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
    overrides = [*entry["overrides"], *source["overrides"]]
    rest = {key: entry[key] for key in ("choose", "published", "source", "penalties", "own") if key in entry}
    return Protocol(name, data, source["title"], overrides, **rest)


def sweep(overrides: Sequence[str], jobs: int) -> list[str]:
    """The arguments of train.py for a sweep, `jobs` runs at a time."""
    launcher = ["hydra/launcher=parallel", f"hydra.launcher.n_jobs={jobs}"] if jobs > 1 else []
    return ["--multirun", *overrides, "logger=none", "progress=false", *launcher]


def launch(commands: Sequence[Sequence[str]], *, run: bool) -> None:
    """Print each command; run: and run it. A sweep goes on when a run diverges: its folder says so."""
    own_methods = {"PYTHONPATH": os.pathsep.join(filter(None, ["scripts", os.environ.get("PYTHONPATH")]))}
    for command in commands:
        needs_them = any(argument == "trusted=[ablated]" for argument in command)
        print("PYTHONPATH=scripts " * needs_them + shlex.join(["python", "train.py", *command]), flush=True)
        if run:
            environment = os.environ | (own_methods if needs_them else {})
            subprocess.run([sys.executable, "train.py", *command], check=False, cwd=ROOT, env=environment)
