"""Renew tables and figures of docs/ablations.md: python scripts/ablations.py [NAME ... | all] [--run --jobs 2]

With names: print the sweeps of those ablations, a few dozen runs of seconds each, or --run them first. What is found
below ROOT/ablations goes to docs/data/ablations.csv, a line per run, of which tables and figures are made.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.figures import save_figure
from studies.ablations import order_spread, read_ablations
from studies.pages import markdown, read_csv, renew, write_csv
from studies.protocols import DATA, launch


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="all, or some of those in docs/data/ablations.yaml")
    parser.add_argument("--run", action="store_true", help="run the sweeps")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--root", default="runs")
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where ablations.md and data/ are")
    args = parser.parse_args(arguments)
    ablations = read_ablations()
    for name in list(ablations) if args.names == ["all"] else args.names:
        if name not in ablations:
            raise ConfigError(f"names must be all or some of {', '.join(ablations)}, got {name!r}")
        launch([ablations[name].command(arm, args.root, args.jobs) for arm in ablations[name].arms], run=args.run)
    path = args.docs / "data" / "ablations.csv"
    rows, tables = read_csv(path), {}
    for name, ablation in ablations.items():
        found = ablation.rows(Path(args.root), list(rows))
        if len(found):
            rows = pd.concat([rows[~((rows["ablation"] == name) & rows["arm"].isin(found["arm"]))], found])
        own = rows[(rows["ablation"] == name) & rows["arm"].isin(ablation.arms)]
        if len(own):
            head = f"{own['seed'].nunique()} seeds, {len(own)} runs."
            tables[name] = f"{head}\n\n{markdown(ablation.table(own))}"
            if ablation.orders:
                tables[name] += f"\n\n{markdown(order_spread(own))}"
            save_figure(ablation.figure(own), args.docs / f"ablation_{name}.png")
    write_csv(path, rows)
    page: Path = args.docs / "ablations.md"
    renew(page, tables)
    return page


if __name__ == "__main__":
    with one_line_errors():
        print(main())
