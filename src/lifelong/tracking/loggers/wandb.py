"""Weights & Biases; the only module that imports wandb.

A run's rows go to wandb/rows.jsonl in the run folder first: those of the history, with costs and histograms. W&B gets
them from there in the background, in order, beginning with the first one it lacks. So training waits for no server, a
resumed run neither doubles rows nor misses any, and a run that was offline is uploaded later by the same logger
(scripts/sync.py). What W&B fails to take is said in one line on stderr.
"""

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from lifelong.runs.atomic import atomic_write
from lifelong.tracking.about import About
from lifelong.tracking.background import Background
from lifelong.tracking.gallery import Gallery, Shown
from lifelong.tracking.history import History, Row, numbers, read_history

ROWS, SERVER, TESTED = "wandb/rows.jsonl", "wandb/server.json", "test/accuracy/"
_offline = False
"""Whether a run of this process is offline: later jobs of a multirun neither wait for the server nor say so again."""


class WandbLogger(LightningWandbLogger, Gallery):
    """Lightning's WandbLogger on the stream's own step axis, in the background.

    Online if the machine is logged in (or WANDB_MODE says so), else offline in the run folder. The W&B run has the run
    id, so that a resumed run goes on in it; a W&B agent gives its trials ids of their own.

    Args:
        group: what the run is grouped with, e.g. its sweep.
        init_timeout, finish_timeout: seconds the server has to answer at the start and to take what is left at the end.
            A run that has nothing else to do waits for both, and once more for its last rows.
    """

    def __init__(
        self,
        about: About,
        project: str,
        entity: str | None,
        group: str | None,
        tags: Sequence[str],
        init_timeout: float,
        finish_timeout: float,
    ) -> None:
        what: dict[str, Any] = {"entity": entity, "group": group, "job_type": about.method, "tags": list(tags)}
        super().__init__(about.title, about.folder, about.run_id, project=project, config=about.flat_config, **what)
        self.about, self.init_timeout, self.finish_timeout = about, init_timeout, finish_timeout
        rows = kept_rows(about.folder)
        self._num_rows, self._rows = len(rows), History(about.folder / ROWS)
        self._run: Any = None
        self._online = self._has_failed = False
        self._num_held = 0
        self._matrix: list[list[float]] = []
        self._started = Event()
        self._background = Background(self._fail)
        self._background.do(partial(self._start, rows))

    @property
    def experiment(self) -> Any:
        """The W&B run; whoever uses it waits until it has started. Rows logged by it directly do not count as ours."""
        return OnceStarted(self)

    def started_run(self) -> Any:
        """The W&B run, None if there is none within two times init_timeout."""
        self._started.wait(2 * self.init_timeout)
        return self._run

    # Who logs, and does not wait -----------------------------------------------------------------------------------

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """A row; what is no number (Lightning's log_image, log_table) goes to W&B alone."""
        self._log({"step": step, **numbers(metrics)}, metrics)

    def log_task(self, row: Row, step: int, shown: Shown) -> None:
        histograms = {name: [part.tolist() for part in histogram] for name, histogram in shown.importance.items()}
        self._log({"step": step, **row, "importance": histograms})

    def _log(self, row: Row, objects: Row | None = None) -> None:
        self._rows.append(row)
        self._background.do(partial(self._send, self._num_rows, row, objects))
        self._num_rows += 1

    def summarise(self, metrics: Row) -> None:
        self._background.do(partial(self._summarise, dict(metrics)))

    def close(self, success: bool) -> None:
        starting = 0.0 if self._started.is_set() else self.init_timeout
        self._background.do(partial(self._finish, 0 if success else 1))
        if not self._background.finish(starting + 2 * self.finish_timeout):
            self._fail(TimeoutError(f"no answer within {2 * self.finish_timeout:g} s"))
        self._rows.close()

    # In the background ---------------------------------------------------------------------------------------------

    def _start(self, rows: Sequence[Row]) -> None:
        """Raises whatever W&B raises if even an offline run cannot be had: nothing is then logged."""
        global _offline
        import wandb

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # of W&B's own telemetry, if the server is gone
        wandb.setup(wandb.Settings(silent=True))
        try:
            mode = "offline" if _offline else os.environ.get("WANDB_MODE", "")
            mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
            self._init(mode)
            reason = "not logged in" if "WANDB_MODE" not in os.environ else f"WANDB_MODE={mode}"
        except Exception as error:
            wandb.teardown()  # its process holds on to the id of a run that failed to start
            wandb.setup(wandb.Settings(silent=True))
            mode, reason = "offline", one_line(error)
            self._init(mode)
        if mode == "offline" and not _offline:
            _offline = True
            self._say(reason)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        self._started.set()
        for number, row in enumerate(rows):
            self._send(number, row)

    def _init(self, mode: Any) -> None:
        import wandb

        for path in self.about.folder.glob("wandb/*run-*"):  # all that earlier attempts logged is among the rows
            shutil.rmtree(path)
        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, reinit="create_new",
            init_timeout=self.init_timeout, finish_timeout=self.finish_timeout, finish_timeout_raises=True,
        )  # fmt: skip
        run_id = os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else self.about.run_id
        known = run_id == at_server(self.about.folder)[0]  # else the run is new, or takes the place of one
        how = {"mode": mode, "resume": "allow" if known else None, "settings": settings}
        self._run = wandb.init(**{**self._wandb_init, **how})
        if mode == "online":
            self._online, self._num_held = True, self._run.starting_step
            note_at_server(self.about.folder, self._run.id, 0)

    def _send(self, number: int, row: Row, objects: Row | None = None) -> None:
        """Hand W&B a row unless it has it, or has failed to take one before."""
        import wandb

        accuracies = {k.removeprefix(TESTED): v for k, v in row.items() if k.startswith(TESTED)}
        self._matrix += [list(accuracies.values())] if accuracies else []
        if self._has_failed or number < self._num_held:
            return
        sent = {**(objects or {}), **numbers(row), "step": row["step"]}
        for name, (counts, edges) in row.get("importance", {}).items():
            sent[f"importance/log10/{name}"] = wandb.Histogram(np_histogram=(counts, edges))
        if accuracies:
            shown = Shown(self._matrix, list(accuracies), self.about.title)
            cells = [[shown.names[i], *line] for i, line in enumerate(shown.matrix)]
            sent["accuracy_matrix"] = wandb.Table(columns=["after learning", *shown.names], data=cells)
            sent["accuracy_matrix_image"] = wandb.Image(shown.picture(), caption="test accuracy (%)")
        self._run.log(sent)

    def _summarise(self, metrics: dict[str, Any]) -> None:
        if not self._has_failed:
            self._run.summary.update(metrics)

    def _finish(self, exit_code: int) -> None:
        """Raises whatever W&B raises if the server does not take what is left, or does not say how much it has."""
        if self._run is None:
            return
        self._run.finish(exit_code=exit_code)
        if self._online and not self._has_failed:
            import wandb

            told = wandb.Api(timeout=int(self.finish_timeout)).run(self._run.path)
            note_at_server(self.about.folder, self._run.id, told.lastHistoryStep + 1)

    def _fail(self, error: Exception) -> None:
        """W&B gets no more rows, so that what it has stays the first of them; one line says so."""
        if not self._has_failed:
            self._has_failed = True
            self._say(one_line(error))

    def _say(self, reason: str) -> None:
        where = self.about.folder / "wandb"
        print(f"W&B is offline ({reason}): the rows are in {where}, make sync uploads them", file=sys.stderr)


class OnceStarted:
    """Stands for the W&B run: Lightning asks for `experiment` before each fit, and training must not wait there."""

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger.started_run(), name)


def at_server(folder: Path) -> tuple[str | None, int]:
    """The id under which the server has the run, and how many rows it has said to have."""
    path = folder / SERVER
    return tuple(json.loads(path.read_text())) if path.exists() else (None, 0)


def note_at_server(folder: Path, run_id: str, num_rows: int) -> None:
    with atomic_write(folder / SERVER) as file:
        json.dump([run_id, num_rows], file)


def kept_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of rows.jsonl up to the history's last one, and those of the history it lacks; written back.

    A run that begins anew has none, and what W&B has of it is forgotten.
    """
    history, path = read_history(folder / "history.jsonl"), folder / ROWS
    if not history:
        shutil.rmtree(path.parent, ignore_errors=True)
    rows = read_history(path) if path.exists() else []
    ours = [i for i, row in enumerate(rows) if "task" in row]  # others come from the user's callbacks
    rows = rows[: ours[len(history)]] if len(ours) > len(history) else rows + history[len(ours) :]
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    return rows


def is_uploaded(folder: Path) -> bool:
    """Whether the server has said that it has all rows of a run that W&B logged; true if there are none."""
    path = folder / ROWS
    return not path.exists() or at_server(folder)[1] >= len(read_history(path))


def one_line(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())[:200] or type(error).__name__
