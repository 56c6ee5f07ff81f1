"""Weights & Biases; the only module that imports wandb.

All talk with W&B is in the background: it may wait for a server, training does not. What W&B refuses or fails to take
is said once, in one line on stderr; the run itself goes on, and what was logged lies in the run folder.
"""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lifelong.tracking.about import About
from lifelong.tracking.background import Background
from lifelong.tracking.gallery import Gallery, Shown
from lifelong.tracking.history import numbers, read_history
from lifelong.tracking.loggers.wandb_rows import ResumedRows, forget_rows, num_rows_on_disk

PROBE_SECONDS = 5.0
_unusable = False
"""Whether a run of this process had to go offline: later jobs of a multirun do not wait for the server again."""


def wandb_logger(
    about: About,
    project: str,
    entity: str | None,
    group: str | None,
    tags: Sequence[str],
    init_timeout: float,
    finish_timeout: float,
) -> list[Logger]:
    """Weights & Biases: online if the machine is logged in (or WANDB_MODE says so), else offline in the run folder.

    The W&B run id is the run id, so a resumed run goes on in the same W&B run, with the first row W&B has not got; one
    that begins anew takes its place.

    Args:
        group: what the run is grouped with, e.g. its sweep.
        init_timeout, finish_timeout: how many seconds the server has to answer at the start and to take what is left at
            the end; a run that has nothing else to do waits for both, and once more for its last rows.
    """
    what = {"project": project, "entity": entity, "group": group, "tags": list(tags)}
    return [WandbLogger(about, what, init_timeout, finish_timeout)]


class WandbLogger(Logger, Gallery):
    """Logs on the stream's own step axis, in the background."""

    def __init__(self, about: About, what: Mapping[str, Any], init_timeout: float, finish_timeout: float) -> None:
        self.about, self.what = about, dict(what)
        self.init_timeout, self.finish_timeout = init_timeout, finish_timeout
        self._run: Any = None
        self._online = self._has_spoken = False
        self._takes_tables = True
        self._history = read_history(about.folder / "history.jsonl")  # now: it will grow while W&B is still starting
        if not self._history:
            forget_rows(about.folder)
        self._on_disk = {unsynced: num_rows_on_disk(about.folder, unsynced) for unsynced in (False, True)}
        self._resumed = ResumedRows([], 0)
        self._background = Background(self._say)
        self._background.do(self._start)

    @property
    def name(self) -> str:
        return str(self.what["project"])

    @property
    def version(self) -> str:
        return self.about.run_id

    # Who logs, and does not wait -----------------------------------------------------------------------------------

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The configuration is there from the start."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self._background.do(partial(self._log_row, {**metrics, "step": step}))

    def log_task(self, row: Mapping[str, float], step: int, shown: Shown) -> None:
        self._background.do(partial(self._log_task, {**row, "step": step}, shown))

    def summarise(self, metrics: Mapping[str, Any]) -> None:
        self._background.do(partial(self._summarise, dict(metrics)))

    def close(self, success: bool) -> None:
        self._background.do(partial(self._finish, 0 if success else 1))
        starting = 0.0 if self._run else self.init_timeout
        if not self._background.finish(starting + 2 * self.finish_timeout):
            self._say(TimeoutError(f"no answer within {2 * self.finish_timeout:g} s"))

    # In the background ---------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Raises whatever W&B raises if even an offline run cannot be had: nothing is then logged."""
        global _unusable
        import wandb

        wandb.setup(wandb.Settings(silent=True))
        if not _unusable:
            try:
                mode = os.environ.get("WANDB_MODE") or self._mode()
                self._online = mode == "online"
                self._init(mode)
            except Exception as error:
                _unusable = True
                self._say(error)
                wandb.teardown()  # its process holds on to the id of a run that failed to start
                wandb.setup(wandb.Settings(silent=True))
        if self._run is None:
            self._online = False
            self._init("offline")
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        num_held = self._run.starting_step + self._on_disk[True] if self._online else self._on_disk[False]
        self._resumed = ResumedRows(self._history, num_held)
        for row in self._resumed.lost:
            self._log({**numbers(row), "step": row["step"]})

    @staticmethod
    def _mode() -> str:
        import wandb

        return "online" if wandb.login(prompt=False, verify=False) else "offline"

    def _init(self, mode: Any) -> None:
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", x_disable_stats=True, reinit="create_new",
            init_timeout=self.init_timeout, finish_timeout=self.finish_timeout, finish_timeout_raises=True,
        )  # fmt: skip
        about = self.about
        self._run = wandb.init(
            id=about.run_id, name=about.title, job_type=about.method, config=about.flat_config, dir=about.folder,
            resume="allow" if self._history else None, mode=mode, settings=settings, **self.what,
        )  # fmt: skip

    def _wants_next(self) -> bool:
        """Whether W&B is there and lacks the row that comes; to be asked once for each."""
        return self._run is not None and self._resumed.next_is_new()

    def _log_row(self, row: Mapping[str, Any]) -> None:
        if self._wants_next():
            self._log(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.log(dict(row))

    def _log_task(self, row: Mapping[str, float], shown: Shown) -> None:
        if not self._wants_next():
            return
        import wandb

        seen: dict[str, Any] = {
            f"importance/log10/{name}": wandb.Histogram(np_histogram=h) for name, h in shown.importance.items()
        }
        seen["accuracy_matrix_image"] = wandb.Image(shown.picture, caption="test accuracy (%)")
        if self._takes_tables and self._answers():
            cells = [[shown.names[i], *line] for i, line in enumerate(shown.matrix)]
            table = wandb.Table(columns=["after learning", *shown.names], data=cells)
            try:
                self._log({**row, **seen, "accuracy_matrix": table})
                return
            except Exception as error:
                self._takes_tables = False
                self._say(error)
        self._log({**row, **seen})

    def _answers(self) -> bool:
        """Asked before a table, which alone waits for the server, a third of a minute if that is down."""
        if not self._online:
            return True
        try:
            urllib.request.urlopen(self._run.settings.base_url, timeout=PROBE_SECONDS).close()
        except urllib.error.HTTPError as error:
            self._takes_tables = error.code not in (401, 403) and error.code < 500
        except OSError:
            self._takes_tables = False
        if not self._takes_tables:
            self._say(ConnectionError("the server has stopped answering"))
        return self._takes_tables

    def _summarise(self, metrics: Mapping[str, Any]) -> None:
        if self._run is not None:
            self._run.summary.update(metrics)

    def _finish(self, exit_code: int) -> None:
        if self._run is None:
            return
        self._run.finish(exit_code=exit_code)
        if self._online:
            self._mark_uploaded()

    def _mark_uploaded(self) -> None:
        """As `wandb sync` marks what it has uploaded, unless W&B's own log tells that the upload was given up."""
        settings = self._run.settings
        if "fatal error" in Path(settings.log_internal).read_text(errors="replace"):
            raise ConnectionError("the server has refused rows")
        Path(f"{settings.sync_file}.synced").touch()

    def _say(self, error: Exception) -> None:
        if not self._has_spoken:
            self._has_spoken = True
            reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
            print(f"W&B: {reason[:200]}: the run goes on offline, make sync uploads it later", file=sys.stderr)
