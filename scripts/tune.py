"""Choose each method's strength on validation data from finished runs; print the commands that are still to be run.

    python scripts/tune.py vandeven_split_class --data mnist5k --seeds 0,1,2 --run --jobs 2

A grid of --around decades either side of the method's default, each strength at the first --choose-seeds seeds: the one
with the best mean val_average_accuracy is chosen (none of whose runs failed); while that is the grid's first or last
one, or none ran through, the grid grows by a decade, up to --reach decades either way. What differs while choosing
(validation data held out, or the first tasks of the stream alone, the rule of A-GEM) is in docs/data/protocols.yaml.
Test data has no part in it. Then come the reported seeds. --run: run the commands (sweeps of train.py, so that finished
runs answer and interrupted ones go on), until nothing is missing.
"""

import argparse
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import composed, one_line_errors
from lifelong.plots.report.runs import read_run
from lifelong.runs.identity import identifier
from studies.protocols import Protocol, default_strength, launch, protocol, sweep

CRITERION = "val_average_accuracy"
Scores = dict[int, float]
"""decade → mean validation accuracy; −inf where a run failed."""


def strength_at(method: str, decade: int) -> float:
    """The method's default strength times 10^decade, without the dust of powers of ten."""
    return float(f"{(default_strength(method) or 0.0) * 10.0**decade:.12g}")


def best_decade(scores: Scores) -> int:
    """Of equals the one nearest the method's default."""
    return max(scores, key=lambda decade: (scores[decade], -abs(decade), -decade))


def next_decades(scores: Scores, around: int, reach: int) -> list[int]:
    """What the grid still wants: 0 ± around first, then the neighbour of a best at its edge; while all failed, both."""
    if wanted := [d for d in range(-around, around + 1) if d not in scores]:
        return wanted
    if max(scores.values()) == -math.inf:
        return [d for d in (min(scores) - 1, max(scores) + 1) if abs(d) <= reach]
    best = best_decade(scores)
    return [d for d in (best - 1, best + 1) if d not in scores and abs(d) <= reach]


@dataclass(frozen=True)
class Tuning:
    """A protocol's runs: which are there, and which are wanted next.

    Attributes:
        seeds: at which strengths are chosen.
        around, reach: how many decades either way are tried in any case, and at most.
    """

    plan: Protocol
    seeds: Sequence[int]
    around: int
    reach: int
    overrides: Sequence[str]
    root: str

    def arguments(self, method: str, strength: float | None, *, choosing: bool) -> list[str]:
        """Of all that belongs to a run but its seed."""
        name = self.plan.run_name + ("/choose" if choosing else "")
        chosen = self.plan.choose if choosing else ()
        return [*self.plan.of_method(method, strength), *chosen, *self.overrides, f"root={self.root}", f"name={name}"]

    def run(self, method: str, strength: float | None, seed: int, *, choosing: bool) -> dict[str, Any] | None:
        """The row of a run that is finished or failed, else None."""
        config = _composed(tuple(self.arguments(method, strength, choosing=choosing)))
        config.seed = seed
        folder = Path(self.root) / config.name / identifier(config)
        row = read_run(folder) if (folder / "config.yaml").exists() else {"state": "absent"}
        return row if row["state"] in ("finished", "failed") else None

    def scores(self, method: str) -> Scores:
        """Of the decades whose runs are all there."""
        found = {}
        for decade in range(-self.reach, self.reach + 1):
            strength = strength_at(method, decade)
            rows = [self.run(method, strength, seed, choosing=True) for seed in self.seeds]
            if None not in rows:
                values = [row.get(CRITERION) for row in rows if row and row["state"] == "finished"]
                known = [value for value in values if value is not None]
                found[decade] = math.fsum(known) / len(known) if len(known) == len(rows) else -math.inf
        return found

    def commands(self, method: str, seeds: Sequence[int], jobs: int) -> list[list[str]]:
        """The sweep that is wanted next for a method, if any: of its grid, then of the reported seeds."""
        strength = None
        if default_strength(method) is not None:
            scores = self.scores(method)
            if decades := next_decades(scores, self.around, self.reach):
                grid = ",".join(repr(strength_at(method, decade)) for decade in decades)
                arguments = [*self.arguments(method, None, choosing=True), f"method.strength={grid}"]
                return [sweep([*arguments, f"seed={','.join(map(str, self.seeds))}"], jobs)]
            strength = strength_at(method, best_decade(scores))
        wanted = [seed for seed in seeds if self.run(method, strength, seed, choosing=False) is None]
        arguments = [*self.arguments(method, strength, choosing=False), f"seed={','.join(map(str, wanted))}"]
        return [sweep(arguments, jobs)] if wanted else []

    def said(self, method: str) -> str:
        scores = self.scores(method)
        best = best_decade(scores)
        at_edge = ", at the end of what may be tried" if abs(best) == self.reach else ""
        return f"{method}: λ = {strength_at(method, best):g}, {CRITERION} {100 * scores[best]:.1f}{at_edge}"


@functools.cache
def _composed(arguments: tuple[str, ...]) -> DictConfig:
    config: DictConfig = composed(arguments)
    return config


def parts_of(given: str, key: str, allowed: Sequence[str] | None = None) -> list[str]:
    """a,b as a list. Raises ConfigError unless all are allowed (None: integers, none of them twice)."""
    parts = given.split(",")
    wrong = [part for part in parts if part not in allowed] if allowed else [p for p in parts if not p.isdecimal()]
    if wrong or len(set(parts)) < len(parts):
        what = f"some of {', '.join(allowed)}" if allowed else "integers >= 0"
        raise ConfigError(f"--{key} must be {what}, with commas between and none twice, got {given!r}")
    return parts


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", help="a name of docs/data/protocols.yaml")
    parser.add_argument("--data", default="mnist5k", help="a source of docs/data/protocols.yaml")
    parser.add_argument("--methods", help="the protocol's, unless said otherwise")
    parser.add_argument("--seeds", default="0,1,2", help="reported")
    parser.add_argument("--choose-seeds", type=int, default=3, help="how many of them strengths are chosen at")
    parser.add_argument("--run", action="store_true", help="run the commands")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--around", type=int, default=1, help="decades either way that are tried in any case")
    parser.add_argument("--reach", type=int, default=6, help="decades the grid may grow either way")
    parser.add_argument("--root", default="runs")
    parser.add_argument("overrides", nargs="*", help="further settings of every run")
    args = parser.parse_intermixed_args(arguments)
    if args.choose_seeds < 1:
        raise ConfigError(f"--choose-seeds must be an integer >= 1, got {args.choose_seeds}")
    methods = protocol(args.protocol, args.data).methods
    args.methods = parts_of(args.methods, "methods", methods) if args.methods is not None else methods
    args.seeds = [int(seed) for seed in parts_of(args.seeds, "seeds")]
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parsed(arguments)
    plan, choosing = protocol(args.protocol, args.data), args.seeds[: args.choose_seeds]
    tuning = Tuning(plan, choosing, args.around, args.reach, args.overrides, args.root)
    before: list[list[str]] = []
    while commands := [c for method in args.methods for c in tuning.commands(method, args.seeds, args.jobs)]:
        if commands == before:
            raise ConfigError("the commands above left runs that neither finished nor failed: see what they say")
        launch(commands, run=args.run)
        if not args.run:
            return
        before = commands
    for method in args.methods:
        if default_strength(method) is not None:
            print(tuning.said(method))


if __name__ == "__main__":
    with one_line_errors():
        main()
