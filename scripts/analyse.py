"""What the weights of finished runs say: python scripts/analyse.py runs/a/RUN ... --measures cka,plasticity

Nothing is trained again. Each measure goes to RUN/analysis.json beside those of before, and to a picture:

    overlap       importances of the tasks by themselves      needs keep_importances=true
    connectivity  lines between the weights of task ends      needs keep_weights=true
    cka           representations at task ends                needs keep_weights=true
    plasticity    dormant units, rank, norm, trainability     of the last task end alone without keep_weights=true

A line says which measures a run lacks the files for; the exit code is then 1 if --measures named them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lifelong.analysis.cka import cka
from lifelong.analysis.connectivity import connectivity
from lifelong.analysis.ends import Ends, LackingError, read_importances
from lifelong.analysis.overlap import overlap
from lifelong.analysis.plasticity import plasticity
from lifelong.config.checks import check
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.experiment.load import load, load_method
from lifelong.experiment.parts import initial_learner, make_stream
from lifelong.methods.method import Method
from lifelong.plots.analysed import FIGURES
from lifelong.plots.figures import save_figure
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import title

MEASURES = tuple(FIGURES)


def task_ends(folder: RunFolder, trusted: Sequence[str], num_samples: int) -> Ends:
    """Raises ConfigError or RunFolderError if the run is not finished, damaged, or not to be trusted."""
    folder.read_metrics()
    config = folder.read_config()
    config.trusted = list(trusted)
    check(config)
    stream = make_stream(config)
    learner = load(folder.path, trusted, stream.as_input)
    per_task = type(load_method(folder.path, learner, trusted)).enter is not Method.enter
    return Ends(folder, stream, learner, lambda: initial_learner(config, stream).state_dict(), per_task, num_samples)


def analyse(ends: Ends, measures: Sequence[str], points: int, steps: int) -> list[str]:
    """Take the measures, write them and draw them; returns those the run lacks what it needs for, told on stderr."""
    config, names, missing = ends.folder.read_config(), ends.stream.names, []
    take: dict[str, Callable[[], dict[str, Any]]] = {
        "overlap": lambda: overlap(read_importances(ends.folder, len(names))),
        "connectivity": lambda: connectivity(ends, points),
        "cka": lambda: cka(ends),
        "plasticity": lambda: plasticity(ends, steps, config.batch_size),
    }
    for measure in measures:
        try:
            ends.folder.write_analysis({measure: take[measure]()})
        except LackingError as error:
            missing.append(measure)
            print(error, file=sys.stderr)
            continue
        file, draw = FIGURES[measure]
        found = ends.folder.read_analysis()[measure]
        save_figure(draw(found, names, title(config)), ends.folder.path / file)
        print(f"{measure}: {ends.folder.path / file}", flush=True)
    return missing


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code. Raises ConfigError for a setting outside what is allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--measures", help=f"some of {','.join(MEASURES)}: all by default")
    parser.add_argument("--samples", type=int, default=1000, help="of a task, at most, for cka and plasticity (1000)")
    parser.add_argument("--points", type=int, default=11, help="on a line of connectivity, its ends included (11)")
    parser.add_argument("--steps", type=int, default=200, help="on shuffled labels, for plasticity (200)")
    parser.add_argument("--trusted", action="append", default=[], help="a further prefix that a _target_ may have")
    own = parser.parse_args(arguments)
    measures = own.measures.split(",") if own.measures else MEASURES
    if unknown := [measure for measure in measures if measure not in MEASURES]:
        raise ConfigError(f"measures must be some of {', '.join(MEASURES)}, got {unknown[0]!r}")
    for key, least in (("samples", 2), ("points", 2), ("steps", 1)):
        if getattr(own, key) < least:
            raise ConfigError(f"{key} must be an integer >= {least}, got {getattr(own, key)}")
    missing = []
    for run in own.runs:
        missing += analyse(task_ends(RunFolder(run), own.trusted, own.samples), measures, own.points, own.steps)
    return int(bool(missing and own.measures))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
