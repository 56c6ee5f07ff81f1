"""Trackio (Hugging Face): a dashboard of local SQLite files, of a Space, or of a server of one's own."""

import io
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from typing import Any

from lightning.pytorch.loggers import Logger

from lifelong.tracking.about import About
from lifelong.tracking.gallery import Gallery, Histogram, Matrix, picture, tested
from lifelong.tracking.history import Row, numbers, read_history
from lifelong.tracking.loggers.service import Forgiving, required


class Trackio(Forgiving, Logger, Gallery):
    """A Trackio run named by the run id, on the stream's own step axis.

    TRACKIO_DIR, TRACKIO_SPACE_ID and TRACKIO_SERVER_URL say where it goes, as for any program that uses Trackio. A
    resumed run begins anew, with its history; what it logged before on this machine is deleted.

    Args:
        project: of the dashboard.
        group: what the run is grouped with, e.g. its sweep.

    Raises:
        ModuleNotFoundError: trackio is not installed.
    """

    def __init__(self, about: About, project: str, group: str | None) -> None:
        super().__init__()
        self._trackio = required("trackio", extra="trackio")
        self.about, self.project, self.group = about, project, group
        self.run: Any = None
        self.attempt(self._begin)

    def _begin(self) -> None:
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        with redirect_stdout(io.StringIO()):  # where it goes and how to show it, each time
            with suppress(ValueError):  # there is no such project yet
                for run in self._trackio.Api().runs(self.project):
                    if run.name == self.about.run_id:
                        run.delete()
            config = {**self.about.flat_config, "title": self.about.title}
            self.run = self._trackio.init(self.project, self.about.run_id, self.group, config=config, **quiet)
        self._trackio.context_vars.current_run.set(None)  # else the next init, of a stacked sweep, would finish it
        for row in read_history(self.about.folder / "history.jsonl"):
            self.run.log(numbers(row), row["step"])

    @property
    def name(self) -> str:
        return self.project

    @property
    def version(self) -> str:
        return self.about.run_id

    @property
    def experiment(self) -> Any:
        """The Trackio run."""
        return self.run

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run has the whole configuration already."""

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self.attempt(lambda: self.run.log(dict(metrics), step))

    def log_task(self, row: Row, step: int, matrix: Matrix, importance: dict[str, Histogram]) -> None:
        names = tested(row)
        cells = [[name, *accuracies] for name, accuracies in zip(names, matrix, strict=False)]
        shown: dict[str, Any] = dict(numbers(row))

        def log() -> None:
            shown["accuracy_matrix"] = self._trackio.Table(columns=["after learning", *names], data=cells)
            image = picture(matrix, names, self.about.title)
            shown["accuracy_matrix_image"] = self._trackio.Image(image, caption="test accuracy (%)")
            for name, histogram in importance.items():
                shown[f"importance/log10/{name}"] = self._trackio.Histogram(np_histogram=histogram)
            self.run.log(shown, step)

        self.attempt(log)

    def summarise(self, metrics: Row) -> None:
        self.log_metrics({f"summary/{key}": value for key, value in numbers(metrics).items()})

    def close(self, status: str) -> None:
        def finish() -> None:
            with redirect_stdout(io.StringIO()):
                self.run.finish()

        self.attempt(finish)
