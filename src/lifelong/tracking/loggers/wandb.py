"""Weights & Biases; the only module that imports wandb.

A run's rows go to wandb/rows.jsonl in the run folder first: those of the history, with costs and histograms. W&B gets
them from there in the background, in order, beginning with the first one it lacks. So training waits for no server, a
resumed run neither doubles rows nor misses any, and a run that was offline is uploaded later by the same logger
(scripts/sync.py). What W&B fails to take is said in one line on stderr.
"""

import json
import logging
import math
import os
import shutil
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from lifelong.runs.atomic import atomic_write
from lifelong.runs.folder import RunFolder
from lifelong.tracking.about import About
from lifelong.tracking.gallery import TESTED, Gallery, Histogram, Matrix, importance_tables, picture, tested
from lifelong.tracking.history import History, Row, numbers, read_history
from lifelong.tracking.loggers.service import one_line

ROWS, SERVER = "wandb/rows.jsonl", "wandb/server.json"
_offline = False
"""Whether a run of this process is offline: later jobs of a multirun neither wait for the server nor say so again."""
_started: set[str] = set()
"""The ids of the runs of this process that W&B has now, many in a stack."""
_first = Lock()
"""Held by the run that finds out for those that start with it whether there is a server."""


class WandbLogger(LightningWandbLogger, Gallery):
    """Lightning's WandbLogger on the stream's own step axis, in the background.

    Online if the machine is logged in (or `mode` or WANDB_MODE says so), else offline in the run folder. The W&B run
    has the run id, so that a resumed run goes on in it; a W&B agent gives its trials ids of their own.

    Args:
        group: what the run is grouped with, e.g. its sweep.
        notes: a longer description of the run.
        mode: "online" or "offline"; None: as WANDB_MODE says.
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
        notes: str | None = None,
        mode: str | None = None,
    ) -> None:
        what: dict[str, Any] = {"entity": entity, "group": group, "job_type": about.method, "tags": list(tags)}
        what |= {"notes": notes} if notes else {}
        super().__init__(about.title, about.folder, about.run_id, project=project, config=about.flat_config, **what)
        self.about, self.init_timeout, self.finish_timeout = about, init_timeout, finish_timeout
        kept = kept_rows(about.folder)
        self._rows, self._queue = History(about.folder / ROWS), SimpleQueue[Row | None]()
        self.run: Any = None
        self.mode, self.failure = mode, ""
        self.started, self._online, self._has_failed, self._exit_code = Event(), False, False, 1
        self._tested: list[Row] = []
        self._metrics: Row = {}
        self._thread = Thread(target=self._work, args=(kept,), daemon=True)  # a hung call does not keep the process
        self._thread.start()

    @property
    def experiment(self) -> Any:
        """The W&B run; whoever uses it waits until it has started. Rows logged by it directly do not count as ours."""
        return OnceStarted(self)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """A row; what is no number (Lightning's log_image, log_table) goes to W&B alone."""
        self._rows.append({"step": step, **numbers(metrics)})
        self._queue.put({**metrics, "step": step})

    def log_task(self, row: Row, step: int, matrix: Matrix, importance: dict[str, Histogram]) -> None:
        histograms = {name: [part.tolist() for part in histogram] for name, histogram in importance.items()}
        whole = {"step": step, **row, "importance": histograms}
        self._rows.append(whole)
        self._queue.put(whole)

    def summarise(self, metrics: Row) -> None:
        """The run is done: what is left goes to W&B while others of its stack are summarised and closed."""
        self._metrics, self._exit_code = metrics, 0
        self._queue.put(None)

    def close(self, status: str) -> None:
        self._queue.put(None)
        self._thread.join(self.init_timeout + 2 * self.finish_timeout)
        if self._thread.is_alive():
            self._fail(TimeoutError(f"no answer within {2 * self.finish_timeout:g} s"))
        self._rows.close()

    def _work(self, kept: list[Row]) -> None:
        """W&B gets no row after one it failed to take, so that what it has stays the first of them."""
        rows = chain(kept, iter(self._queue.get, None))
        try:
            self._start()
            for number, row in enumerate(rows):
                self._send(row, is_there=number < self.run.starting_step)
            self.run.summary.update({**self._metrics, **self._importance()})
        except Exception as error:
            self._fail(error)
            deque(rows, maxlen=0)  # until the run ends
        try:
            if self.run is not None:
                self._finish()
        except Exception as error:
            self._fail(error)
        _started.discard(self.about.run_id)

    def _start(self) -> None:
        """Raises whatever W&B raises if even an offline run cannot be had: nothing is then logged."""
        with _first:
            if is_first := not _started:
                self._begin()
        if not is_first:
            self._begin()

    def _begin(self) -> None:
        global _offline
        import wandb

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # of W&B's own telemetry, if the server is gone
        wandb.setup(wandb.Settings(silent=True))
        mode = "offline" if _offline else self.mode or os.environ.get("WANDB_MODE", "")
        reason = f"{'logger.wandb.mode' if self.mode else 'WANDB_MODE'}={mode}" if mode else "not logged in"
        try:
            mode = mode or ("online" if wandb.login(prompt=False, verify=False) else "offline")
            self._init(mode)
        except Exception as error:
            if _started:
                raise  # they would be torn down with it
            wandb.teardown()  # its process holds on to the id of a run that failed to start
            wandb.setup(wandb.Settings(silent=True))
            mode, reason = "offline", one_line(error)
            self.failure = reason
            self._init(mode)
        if mode == "offline" and not _offline:
            _offline = True
            self._say(reason)
        _started.add(self.about.run_id)
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        self.started.set()

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
        self.run = wandb.init(**{**self._wandb_init, **how})
        self._online = mode == "online"
        if self._online:
            self._note(0)

    def _send(self, row: Row, is_there: bool) -> None:
        import wandb

        names = tested(row)
        self._tested += [row] if names else []
        if is_there:
            return
        sent = {key: value for key, value in row.items() if key != "importance" and value is not None}
        for layer, histogram in row.get("importance", {}).items():
            sent[f"importance/log10/{layer}"] = wandb.Histogram(np_histogram=histogram)
        if names:
            matrix = [[row.get(TESTED + name, math.nan) for name in names] for row in self._tested]  # extend: fewer
            cells = [[name, *accuracies] for name, accuracies in zip(names, matrix, strict=False)]
            sent["accuracy_matrix"] = wandb.Table(columns=["after learning", *names], data=cells)
            image = picture(matrix, names, self.about.title)
            sent["accuracy_matrix_image"] = wandb.Image(image, caption="test accuracy (%)")
        self.run.log(sent)

    def _importance(self) -> dict[str, Any]:
        """What the tasks' own importances share, as tables and as a picture; {} if none were kept or the run failed."""
        import wandb

        folder = RunFolder(self.about.folder)
        tables = importance_tables(folder) if self._metrics else {}
        found: dict[str, Any] = {name: wandb.Table(**table) for name, table in tables.items()}
        return {**found, "importance_image": wandb.Image(str(folder.importance_picture))} if found else {}

    def _finish(self) -> None:
        """Raises whatever W&B raises if the server does not take what is left, or does not say how much it has."""
        import wandb

        self.run.finish(exit_code=self._exit_code)
        if self._online and not self._has_failed:
            self._note(wandb.Api(timeout=int(self.finish_timeout)).run(self.run.path).lastHistoryStep + 1)

    def _note(self, num_at_server: int) -> None:
        with atomic_write(self.about.folder / SERVER) as file:
            json.dump([self.run.id, num_at_server], file)

    def _fail(self, error: Exception) -> None:
        if not self._has_failed:
            self._has_failed, self.failure = True, one_line(error)
            self._say(self.failure)

    def _say(self, reason: str) -> None:
        where = self.about.folder / "wandb"
        print(f"W&B is offline ({reason}): the rows are in {where}, make sync uploads them", file=sys.stderr)


class OnceStarted:
    """Stands for the W&B run: Lightning asks for `experiment` before each fit, and training must not wait there."""

    def __init__(self, logger: WandbLogger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        self._logger.started.wait(2 * self._logger.init_timeout)
        return getattr(self._logger.run, name)


def at_server(folder: Path) -> tuple[str | None, int]:
    """The id under which the server has the run, and how many rows it has said to have."""
    path = folder / SERVER
    return tuple(json.loads(path.read_text())) if path.exists() else (None, 0)


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


def try_online_again() -> None:
    """Forget that a run of this process went offline: the next one asks the server."""
    global _offline
    _offline = False


def is_uploaded(folder: Path) -> bool:
    """Whether the server has said that it has all rows of a run that W&B logged; true if there are none."""
    path = folder / ROWS
    return not path.exists() or at_server(folder)[1] >= len(read_history(path))
