"""Ablations that settle questions: python scripts/ablations.py fisher steps --jobs 2, or all; no name: the page alone.

Each is a few dozen runs of seconds below runs/ablations/NAME. They answer from their folders when the command is given
again and continue where it was interrupted. A line per run goes to docs/data/ablations.csv, of which docs/ablations.md
and its figures are made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.runs.atomic import atomic_write
from results import plain, read_csv, write_csv
from studies.ablations_figures import draw
from studies.ablations_page import page
from studies.ablations_plan import ABLATIONS, Ablation, Arm
from studies.protocols import DATA, Outcome, all_runs, seconds
from studies.results_stats import Row
from tune import QUIET

MEASURES = ("average_accuracy", "val_average_accuracy", "forgetting", "learning_accuracy")
FIELDS = ("ablation", "arm", "x", "seed", "run_id", *MEASURES, "seconds", "failed")


def command(ablation: Ablation, arm: Arm, seed: int, root: str) -> list[str]:
    place = [f"name=ablations/{ablation.name}", f"root={root}", f"seed={seed}", "num_threads=1"]
    return [*ablation.base, *arm.overrides, *place, *QUIET]


def trained(ablation: Ablation, root: str, jobs: int) -> list[Row]:
    wanted = [(arm, seed) for arm in ablation.arms for seed in ablation.seeds]
    outcomes = all_runs([command(ablation, arm, seed, root) for arm, seed in wanted], jobs)
    return [row(ablation, arm, seed, outcome) for (arm, seed), outcome in zip(wanted, outcomes, strict=True)]


def row(ablation: Ablation, arm: Arm, seed: int, outcome: Outcome) -> Row:
    metrics = outcome.metrics
    values = {key: metrics.get(key) for key in MEASURES}
    where = {"ablation": ablation.name, "arm": arm.label, "x": arm.x, "seed": seed}
    values |= {"run_id": outcome.run_id, "failed": outcome.failed}
    return plain({**values, **where, "seconds": f"{seconds(metrics):.2f}" if metrics else None}, FIELDS)


def planned(row: Row) -> bool:
    """Whether the plan still has the row's run: an older plan's are not shown beside the new one's."""
    ablation = ABLATIONS.get(row["ablation"])
    return ablation is not None and any((arm.label, arm.x) == (row["arm"], row["x"]) for arm in ablation.arms)


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"all, or some of {', '.join(ABLATIONS)}")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--root", default="runs")
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where ablations.md and data/ are")
    args = parser.parse_args(arguments)
    names = list(ABLATIONS) if args.names == ["all"] else args.names
    for name in names:
        if name not in ABLATIONS:
            raise ConfigError(f"names must be all or some of {', '.join(ABLATIONS)}, got {name!r}")
    path = args.docs / "data" / "ablations.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        rows = trained(ABLATIONS[name], args.root, args.jobs)
        write_csv(path, FIELDS, [row for row in read_csv(path) if row["ablation"] != name] + rows)
    done = [row for row in read_csv(path) if planned(row)]
    for name, ablation in ABLATIONS.items():
        if own := [row for row in done if row["ablation"] == name]:
            draw(ablation, own, args.docs)
    result: Path = args.docs / "ablations.md"
    with atomic_write(result) as file:
        file.write(page(done))
    return result


if __name__ == "__main__":
    with one_line_errors():
        print(main())
