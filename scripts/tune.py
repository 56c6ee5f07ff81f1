"""Train the rows of a published protocol; print the commands that are still to be run.

    python scripts/tune.py hsu_split_task --compat published --seeds 0-9 --run --jobs 2
    python scripts/tune.py hsu_split_task --compat right --seeds 0-9 --choose-seeds 1 --run --jobs 2

published: methods as the source's code has them, at its strengths. right: as our defaults are, each strength chosen on
validation data from a grid of --around decades either side of the method's default, each at the first --choose-seeds
seeds: the one with the best mean val_average_accuracy is chosen (none of whose runs failed); while that is the grid's
first or last one, or none ran through, the grid grows by a decade, up to --reach decades either way. What differs while
choosing (validation data held out, or the first tasks of the stream alone, the rule of A-GEM) is in
docs/data/protocols.yaml. Test data has no part in it. Then come the reported seeds. --run: run the commands (sweeps of
train.py, so that finished runs answer and interrupted ones go on), until nothing is missing. --stacked: small networks
train side by side in one process, --jobs processes at a time.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lifelong.config.schema import COMPATS, ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import read_run
from lifelong.runs.identity import identifier
from studies.pages import is_over
from studies.protocols import ROOT, Protocol, default_strength, launch, protocol, sweep, with_seed

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
    """A protocol's runs of one column: which are there, and which are wanted next.

    Attributes:
        seeds: at which strengths are chosen.
        around, reach: how many decades either way are tried in any case, and at most.
        jobs, stacked: as `sweep` takes them.
    """

    plan: Protocol
    compat: str
    seeds: Sequence[int]
    around: int
    reach: int
    overrides: Sequence[str]
    root: str
    jobs: int = 1
    stacked: bool = False

    def has_choice(self, row: str) -> bool:
        """Whether the row's strength is chosen here."""
        return self.compat == "right" and default_strength(self.plan.method(row)) is not None

    def arguments(self, row: str, strength: float | None, *, choosing: bool) -> list[str]:
        """Of all that belongs to a run but its seed."""
        name = self.plan.place(row, self.compat) + ("/choose" if choosing else "")
        chosen = self.plan.choose if choosing else ()
        of_row = self.plan.of_row(row, self.compat, strength)
        return [*of_row, *chosen, *self.overrides, f"root={self.root}", f"name={name}"]

    def run(self, row: str, strength: float | None, seed: int, *, choosing: bool) -> dict[str, Any] | None:
        """The row of a run that is over, else None."""
        config = with_seed(self.arguments(row, None, choosing=choosing), seed, strength)
        folder = ROOT / self.root / config.name / identifier(config)
        found = read_run(folder) if (folder / "config.yaml").exists() else {"state": "absent"}
        return found if is_over(found) else None

    def scores(self, row: str) -> Scores:
        """Of the decades whose runs are all there."""
        found = {}
        for decade in range(-self.reach, self.reach + 1):
            strength = strength_at(self.plan.method(row), decade)
            runs = [self.run(row, strength, seed, choosing=True) for seed in self.seeds]
            if None not in runs:
                values = [run.get(CRITERION) for run in runs if run and run["state"] == "finished"]
                known = [value for value in values if value is not None]
                found[decade] = math.fsum(known) / len(known) if len(known) == len(runs) else -math.inf
        return found

    def commands(self, row: str, seeds: Sequence[int]) -> list[list[str]]:
        """The sweep that is wanted next for a row, if any: of its grid, then of the reported seeds."""
        strength = None
        if self.has_choice(row):
            scores, method = self.scores(row), self.plan.method(row)
            if decades := next_decades(scores, self.around, self.reach):
                grid = ",".join(repr(strength_at(method, decade)) for decade in decades)
                arguments = [*self.arguments(row, None, choosing=True), f"method.strength={grid}"]
                return [self._sweep(arguments, self.seeds)]
            strength = strength_at(method, best_decade(scores))
        wanted = [seed for seed in seeds if self.run(row, strength, seed, choosing=False) is None]
        return [self._sweep(self.arguments(row, strength, choosing=False), wanted)] if wanted else []

    def _sweep(self, arguments: Sequence[str], seeds: Sequence[int]) -> list[str]:
        return sweep([*arguments, f"seed={','.join(map(str, seeds))}"], self.jobs, stacked=self.stacked)

    def said(self, row: str) -> str:
        scores = self.scores(row)
        best = best_decade(scores)
        at_edge = ", at the end of what may be tried" if abs(best) == self.reach else ""
        strength = strength_at(self.plan.method(row), best)
        if scores[best] == -math.inf:
            return f"{row}: λ = {strength:g}, the default: at none of {len(scores)} strengths did all runs end well"
        return f"{row}: λ = {strength:g}, {CRITERION} {100 * scores[best]:.1f}{at_edge}"


def parts_of(given: str, key: str, allowed: Sequence[str]) -> list[str]:
    """a,b as a list. Raises ConfigError unless all are allowed and none of them is there twice."""
    parts = given.split(",")
    if not set(parts) <= set(allowed) or len(set(parts)) < len(parts):
        what = f"some of {', '.join(allowed)}"
        raise ConfigError(f"--{key} must be {what}, with commas between and none twice, got {given!r}")
    return parts


def seeds_of(given: str) -> list[int]:
    """0,1,5-9 as numbers. Raises ConfigError unless they are integers >= 0, none of them twice."""
    seeds: list[int] = []
    for part in given.split(","):
        first, dash, last = part.partition("-")
        ends = [first, last if dash else first]
        seeds += (range(int(first), int(ends[1]) + 1) if all(map(str.isdecimal, ends)) else ()) or [-1]
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds must be integers >= 0, with commas between and none twice, or 0-9, got {given!r}")
    return seeds


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", help="a name of docs/data/protocols.yaml")
    parser.add_argument("--data", default="mnist", help="a source of docs/data/protocols.yaml")
    parser.add_argument("--compat", choices=COMPATS, default="right", help="the column of the table")
    parser.add_argument("--methods", help="rows of the table; the column's, unless said otherwise")
    parser.add_argument("--seeds", default="0-2", help="reported")
    parser.add_argument("--choose-seeds", type=int, default=3, help="how many of them strengths are chosen at")
    parser.add_argument("--run", action="store_true", help="run the commands")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--stacked", action="store_true", help="hydra/launcher=stacked")
    parser.add_argument("--around", type=int, default=1, help="decades either way that are tried in any case")
    parser.add_argument("--reach", type=int, default=6, help="decades the grid may grow either way")
    parser.add_argument("--root", default="runs", help="where runs go, seen from the checkout")
    parser.add_argument("overrides", nargs="*", help="further settings of every run")
    args = parser.parse_intermixed_args(arguments)
    if args.choose_seeds < 1:
        raise ConfigError(f"--choose-seeds must be an integer >= 1, got {args.choose_seeds}")
    if not 0 <= args.around <= args.reach:
        raise ConfigError(f"--around must be an integer >= 0 and <= --reach={args.reach}, got {args.around}")
    rows = protocol(args.protocol, args.data).rows_of(args.compat)
    args.methods = parts_of(args.methods, "methods", rows) if args.methods is not None else rows
    args.seeds = seeds_of(args.seeds)
    return args


def check_overrides(tuning: Tuning, rows: Sequence[str]) -> None:
    """Raises ConfigError for an override of what is set here, or that leaves nothing to choose a strength by."""
    chosen = [row for row in rows if tuning.has_choice(row)]
    taken = ["strength_factor", "logger", "progress", *(["method.strength"] if chosen else [])]
    for override in tuning.overrides:
        if (key := override.partition("=")[0].lstrip("+")) in taken:
            raise ConfigError(f"{key} must be left out, as it is set here, got {override}")
    for row in chosen:
        if not with_seed(tuning.arguments(row, None, choosing=True), 0).val_fraction:
            raise ConfigError(f"val_fraction must be > 0 where strengths are chosen by {CRITERION}, got 0 for {row}")


def main(arguments: Sequence[str] | None = None) -> None:
    args = parsed(arguments)
    plan, choosing = protocol(args.protocol, args.data), args.seeds[: args.choose_seeds]
    where = (args.around, args.reach, args.overrides, args.root, args.jobs, args.stacked)
    tuning = Tuning(plan, args.compat, choosing, *where)
    check_overrides(tuning, args.methods)
    before: list[list[str]] = []
    while commands := [c for row in args.methods for c in tuning.commands(row, args.seeds)]:
        if commands == before:
            raise ConfigError("the commands above left runs that neither finished nor diverged: see what they say")
        launch(commands, run=args.run, jobs=args.jobs, stacked=args.stacked)
        if not args.run:
            return
        before = commands
    for row in args.methods:
        if tuning.has_choice(row):
            print(tuning.said(row))


if __name__ == "__main__":
    with one_line_errors():
        main()
