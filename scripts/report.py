"""Write a report of the runs below a folder, one page that needs no network: python scripts/report.py runs/methods."""

import argparse
from pathlib import Path

from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.page import write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="runs/<name>, or any folder above run folders")
    try:
        print(write_report(parser.parse_args().folder))
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
