"""Choose each method's strength on validation data, then train the reported seeds with it.

    python scripts/tune.py vandeven_split_class --data mnist5k --seeds 0,1,2 --jobs 2

A grid of --around decades either side of the method's default, each strength at the first --choose-seeds seeds: the one
with the best mean val_average_accuracy is chosen (none of whose runs failed); while that is the grid's first or last
one, or none ran through, the grid grows by a decade, up to --reach decades either way. What differs while choosing
(validation data held out, or the first tasks of the stream alone, the rule of A-GEM) is in docs/data/protocols.yaml.
Test data has no part in it. Grid, choice, seeds and run ids go to tuning.json beside the run folders. The same command
again answers from the folders, continues what was interrupted, and adds what is new.
"""

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.runs.atomic import atomic_write
from studies.protocols import BOUNDS, METHODS, Outcome, Protocol, all_runs, protocol, run_id_of, seconds

CRITERION = "val_average_accuracy"
QUIET = ("logger=none", "progress=false")


@dataclass(frozen=True)
class Search:
    """How strengths are chosen: at which seeds, how many decades are tried in any case, how many at most."""

    seeds: tuple[int, ...]
    around: int
    reach: int


def default_strength(method: str) -> float:
    return float(yaml.safe_load((CONFIGS / "method" / f"{method}.yaml").read_text(encoding="utf-8"))["strength"])


def strength_at(method: str, decade: int) -> float:
    """The method's default strength times 10^decade, without the dust of powers of ten."""
    return float(f"{default_strength(method) * 10.0**decade:.12g}")


def held_by(plan: Protocol, method: str, strength: float) -> list[str]:
    """Overrides of one method; those of `plan.penalties` only where there is a penalty."""
    return [f"method={method}", f"method.strength={strength!r}", *(() if method in BOUNDS else plan.penalties)]


def score(outcomes: Sequence[Outcome]) -> float:
    """Mean validation accuracy over seeds; −inf if one failed."""
    found = [outcome.metrics.get(CRITERION) for outcome in outcomes if not outcome.failed]
    known = [float(value) for value in found if value is not None]
    return statistics.fmean(known) if len(known) == len(outcomes) else -math.inf


def best_decade(scores: dict[int, float]) -> int:
    """Of equals the one nearest the method's default."""
    return max(scores, key=lambda decade: (scores[decade], -abs(decade), -decade))


def next_decades(scores: dict[int, float], search: Search) -> list[int]:
    """What the grid still wants: 0 ± around first, then the neighbour of a best at its edge; while all failed, both."""
    if not scores:
        return list(range(-search.around, search.around + 1))
    if max(scores.values()) == -math.inf:
        return [d for d in (min(scores) - 1, max(scores) + 1) if abs(d) <= search.reach]
    best = best_decade(scores)
    return [d for d in (best - 1, best + 1) if d not in scores and abs(d) <= search.reach]


Grid = dict[int, list[Outcome]]
"""decade → an outcome for each seed of the search."""


def choose(plan: Protocol, methods: list[str], common: list[str], search: Search, jobs: int) -> dict[str, Any]:
    """method → grid and choice; all methods' grids grow together, so that no process waits for one method."""
    grids: dict[str, Grid] = {method: {} for method in methods if method not in BOUNDS}
    while True:
        scores = {method: {d: score(found) for d, found in grid.items()} for method, grid in grids.items()}
        wanted = [(m, d, seed) for m in grids for d in next_decades(scores[m], search) for seed in search.seeds]
        if not wanted:
            break
        commands = [
            [*common, *plan.choose, f"seed={seed}", *held_by(plan, m, strength_at(m, d))] for m, d, seed in wanted
        ]
        for (method, decade, _), outcome in zip(wanted, all_runs(commands, jobs), strict=True):
            grids[method].setdefault(decade, []).append(outcome)
    return {method: choice_of(plan, method, grid, search) for method, grid in grids.items()}


def choice_of(plan: Protocol, method: str, grid: Grid, search: Search) -> dict[str, Any]:
    best = best_decade({decade: score(outcomes) for decade, outcomes in grid.items()})
    rows = [
        {
            "strength": strength_at(method, decade),
            "seed": seed,
            CRITERION: outcome.metrics.get(CRITERION),
            "run_id": outcome.run_id,
            "failed": outcome.failed,
        }
        for decade, outcomes in sorted(grid.items())
        for seed, outcome in zip(search.seeds, outcomes, strict=True)
    ]
    how = {"chosen_with": list(plan.choose), **asdict(search)}
    return {"strength": strength_at(method, best), "at_edge": abs(best) == search.reach, **how, "grid": rows}


def report(
    plan: Protocol, methods: list[str], chosen: dict[str, Any], common: list[str], seeds: list[int], jobs: int
) -> Any:
    """The reported runs: method → run ids, one for each seed (and what it failed of)."""
    wanted = [(method, seed) for seed in seeds for method in methods]
    commands = [
        [*common, f"seed={seed}", *held_by(plan, method, chosen[method]["strength"] if method in chosen else 0)]
        for method, seed in wanted
    ]
    runs: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
    for (method, seed), outcome in zip(wanted, all_runs(commands, jobs), strict=True):
        spent = seconds(outcome.metrics) if outcome.metrics else None
        runs[method].append({"seed": seed, "run_id": outcome.run_id, "failed": outcome.failed, "seconds": spent})
    return runs


def merged(path: Path, new: dict[str, Any]) -> dict[str, Any]:
    """The file's content with `new` in it: methods that this command did not ask for stay if it has their settings."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if any(old.get(key) != new[key] for key in ("overrides", "setting")):
        old = {}
    return {**new, **{key: {**old.get(key, {}), **new[key]} for key in ("chosen", "runs")}}


def parts_of(given: str, key: str, allowed: Sequence[str] | None = None) -> list[str]:
    """a,b as a list. Raises ConfigError unless all are allowed (None: integers, none of them twice)."""
    parts = given.split(",")
    wrong = [part for part in parts if part not in allowed] if allowed else [p for p in parts if not p.isdecimal()]
    if wrong or len(set(parts)) < len(parts):
        what = f"some of {', '.join(allowed)}" if allowed else "integers >= 0"
        raise ConfigError(f"--{key} must be {what}, with commas between and none twice, got {given!r}")
    return parts


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", help="a name of docs/data/protocols.yaml")
    parser.add_argument("--data", default="mnist5k", help="a source of docs/data/protocols.yaml")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seeds", default="0,1,2", help="reported")
    parser.add_argument("--choose-seeds", type=int, default=3, help="how many of them strengths are chosen at")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--around", type=int, default=1, help="decades either way that are tried in any case")
    parser.add_argument("--reach", type=int, default=6, help="decades the grid may grow either way")
    parser.add_argument("--root", default="runs")
    parser.add_argument("overrides", nargs="*", help="further settings of every run, recorded with the results")
    args = parser.parse_intermixed_args(arguments)
    if args.choose_seeds < 1:
        raise ConfigError(f"--choose-seeds must be an integer >= 1, got {args.choose_seeds}")
    args.methods = parts_of(args.methods, "methods", METHODS)
    args.seeds = [int(seed) for seed in parts_of(args.seeds, "seeds")]
    return args


def main(arguments: list[str] | None = None) -> Path:
    """Returns the path of tuning.json."""
    args = parsed(arguments)
    plan = protocol(args.protocol, args.data)
    search = Search(tuple(args.seeds[: args.choose_seeds]), args.around, args.reach)
    common = [*plan.overrides, *QUIET, *args.overrides, f"name={plan.run_name}", f"root={args.root}"]
    chosen = choose(plan, args.methods, common, search, args.jobs)
    runs = report(plan, args.methods, chosen, common, args.seeds, args.jobs)
    what = {"protocol": plan.name, "data": plan.data, "overrides": [*plan.overrides, *plan.penalties, *args.overrides]}
    setting = run_id_of([*common, "seed=0", *held_by(plan, "finetune", 0)])  # of all but method, strength and seed
    path = Path(args.root) / plan.run_name / "tuning.json"
    with atomic_write(path) as file:
        new = {**what, "setting": setting, "criterion": CRITERION, "chosen": chosen, "runs": runs}
        file.write(json.dumps(merged(path, new), indent=2) + "\n")
    return path


if __name__ == "__main__":
    with one_line_errors():
        print(main())
