"""W&B in this process: offline, or against a server on 127.0.0.1, and nothing of it left behind."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from lifelong.experiment.run import Result
from lifelong.tracking import read_history
from runs import at_every_batch, run
from wandb_server import KEY, Server, wandb_server

WANDB = ("logger=wandb", "logger.wandb.tags=[tiny]")
SHORT = (*WANDB, "logger.wandb.init_timeout=3", "logger.wandb.finish_timeout=3")
"""How long a run waits for a server that does not answer, in seconds."""


@pytest.fixture
def wandb_afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B keeps its settings for a process; and so do we that it is offline."""
    monkeypatch.setattr("lifelong.tracking.loggers.wandb._offline", False)
    import wandb

    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, wandb_afresh: None) -> Iterator[Server]:
    """Runs of this process are online, at this server."""
    import wandb

    wandb.teardown()
    with wandb_server() as told:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", told.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield told


def run_with_fault(root: Path, *overrides: str, server: Server, fault: dict[str, Any], step: int = 8) -> Result:
    """A tiny run whose server fails from a step on; it has taken the run up before."""

    def act(_: Any, done: int) -> None:
        deadline = monotonic() + 60
        while done == step and not server.runs and monotonic() < deadline:
            sleep(0.02)
        if done == step:
            vars(server).update(fault)

    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, act)
        return run(root, *overrides)


def wandb_file(folder: Path) -> Path:
    """Of an offline run; a resumed one has one file as well, with all rows."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return path


def history(result: Result) -> list[dict[str, float]]:
    found = read_history(result.folder / "history.jsonl")
    return [{key: value for key, value in row.items() if value is not None} for row in found]


def points(rows: list[dict[str, float]]) -> dict[str, list[tuple[int, float]]]:
    """Metric → (step, value) in order, of a history's rows."""
    found: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key in row.keys() - {"step"}:
            found.setdefault(key, []).append((int(row["step"]), pytest.approx(row[key], rel=1e-6)))
    return found


def scalars(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """Of each row what the history has too: no costs, which no two runs share, and no media."""
    more = ("cost/", "accuracy_matrix", "importance")
    return [{k: v for k, v in row.items() if not k.startswith(more)} for row in rows]
