"""MLflow: a tracking server, or a SQLite file below the runs' root."""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock
from lightning.pytorch.loggers import MLFlowLogger

from lifelong.tracking.about import About
from lifelong.tracking.gallery import Gallery, Histogram, Matrix, picture, tested
from lifelong.tracking.history import Row, numbers, read_history
from lifelong.tracking.loggers.service import Forgiving, one_line, required

URI = "MLFLOW_TRACKING_URI"
RUN_ID = "lifelong.run_id"
"""The tag by which a resumed run finds what it logged before."""


class MLflow(Forgiving, MLFlowLogger, Gallery):
    """Lightning's MLFlowLogger on the stream's own step axis.

    A resumed run begins anew, with its history: what it logged before is deleted, as MLflow cannot cut a metric.

    Args:
        experiment: its name in MLflow.
        tracking_uri: of a server or a database; None: MLFLOW_TRACKING_URI, else mlflow.db below the runs' root,
            with the pictures in mlflow/ beside it.
        tags: of the run.

    Raises:
        ModuleNotFoundError: mlflow is not installed.
        ConnectionError: the server or the database cannot be used.
    """

    def __init__(self, about: About, experiment: str, tracking_uri: str | None, tags: Mapping[str, str]) -> None:
        required("mlflow", extra="mlflow")
        for name in ("mlflow.store.db.utils", "alembic", "lightning.pytorch.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)  # they tell of tables and experiments that they make
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # 7 of them would stop training for minutes
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        root, given = Path(about.config["root"]).resolve(), os.environ.get(URI)
        local = f"sqlite:///{root / 'mlflow.db'}"
        uri = tracking_uri or given or local
        pictures = (root / "mlflow").as_uri() if uri == local else None  # else they lie in ./mlruns
        own = {**tags, RUN_ID: about.run_id, "method": about.method}
        self.about = about
        alone = FileLock(root / "mlflow.db.lock") if uri == local else nullcontext()  # one job makes the tables
        try:
            with alone:
                super().__init__(experiment, about.title, uri, tags=own, artifact_location=pictures)
                self._begin()
        except Exception as error:
            raise ConnectionError(f"{uri} cannot be used: {one_line(error)}") from error
        finally:  # MLflow sets it, for the next run of this process too
            os.environ.pop(URI, None)
            os.environ.update({URI: given} if given else {})

    def _begin(self) -> None:
        client, kept = self._mlflow_client, []
        if found := client.get_experiment_by_name(self._experiment_name):
            kept = client.search_runs([found.experiment_id], f"tags.`{RUN_ID}` = '{self.about.run_id}'")
        for run in kept:
            client.delete_run(run.info.run_id)
        super().log_hyperparams(self.about.flat_config)
        for row in read_history(self.about.folder / "history.jsonl"):
            super().log_metrics(renamed(numbers(row)), row["step"])

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        log = super().log_metrics
        self.attempt(lambda: log(renamed(metrics), step))

    def log_task(self, row: Row, step: int, matrix: Matrix, importance: dict[str, Histogram]) -> None:
        self.log_metrics(numbers(row), step)
        image = picture(matrix, tested(row), self.about.title)
        name = f"accuracy_matrix/{step:08}.png"
        self.attempt(lambda: self.experiment.log_image(self.run_id, image, name))

    def summarise(self, metrics: Row) -> None:
        self.log_metrics({f"summary/{key}": value for key, value in numbers(metrics).items()}, 0)

    def finalize(self, status: str = "success") -> None:
        """A Trainer is done, the stream is not."""

    def close(self, status: str) -> None:
        end = super().finalize
        self.attempt(lambda: end(status))


def renamed(metrics: Mapping[str, float]) -> dict[str, float]:
    """With what Lightning would strip of a name, and spaces, by code point (a+b: "a 2b b"): no two become one."""
    return {re.sub(r"[^a-zA-Z0-9_/.-]", lambda c: f" {ord(c[0]):x} ", key): value for key, value in metrics.items()}
