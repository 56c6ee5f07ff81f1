"""Write a report of the runs below a folder, one page that needs no network: python scripts/report.py runs/methods."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.page import write_report


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="runs/<name>, or any folder above run folders")
    return write_report(parser.parse_args(arguments).folder)


if __name__ == "__main__":
    with one_line_errors():
        print(main())
