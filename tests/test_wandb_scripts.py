"""scripts/sync.py and scripts/dashboard.py against a server on 127.0.0.1: what arrives, and that twice is as once."""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from runs import run, run_killed
from wandb_server import Server
from wandb_session import SHORT, WANDB, history, run_with_fault, scalars

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
pytestmark = pytest.mark.system  # each call starts Python and W&B's own process

REFUSALS = (503, 429, *(200, 200, 500, 200, 429) * 3)
"""What the server answers first; 200 is as usual."""


def spawned(name: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(SCRIPTS / name), *arguments]
    own = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}  # not this process's W&B
    return subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    with spawned(name, *arguments) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def synced(root: Path) -> tuple[int, list[int]]:
    """Exit code; how many runs were uploaded, uploaded before, not uploaded, in work."""
    done = script("sync.py", str(root))
    found = re.fullmatch(
        r".*: (\d+) uploaded, (\d+) uploaded before, (\d+) not uploaded, (\d+) in work", done.stdout.splitlines()[-1]
    )
    assert found, done
    return done.returncode, [int(number) for number in found.groups()]


def test_sync_uploads_offline_runs_once(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs, one of them interrupted, uploaded and resumed; then again."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    run_killed(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    assert server.requests == []
    assert synced(tmp_path) == (0, [1, 0, 0, 0])
    results = [run(tmp_path, *WANDB, "checkpoint_seconds=1e-9"), run(tmp_path, *WANDB, "seed=1")]
    assert synced(tmp_path) == (0, [2, 0, 0, 0])
    assert set(server.runs) == {result.folder.name for result in results}
    for result in results:
        kept = server.runs[result.folder.name]
        assert scalars(kept.rows) == history(result)
        assert all("cost/samples_per_second" in row for row in kept.rows if "train/loss" in row)
        assert kept.summary["average_accuracy"] == result.metrics["average_accuracy"]
        assert (kept.given("groupName"), kept.given("jobType")) == ("default", "ewc")
        tables = [name for name in kept.files if name.startswith("media/table/accuracy_matrix_")]
        assert len(tables) == 2
        assert sum(any(key.startswith("importance/") for key in row) for row in kept.rows) == 2
    assert [server.runs[result.folder.name].exit_codes for result in results] == [[1, 0], [0]]
    asked = len(server.requests)
    assert synced(tmp_path) == (0, [0, 2, 0, 0])
    assert len(server.requests) == asked


def test_sync_without_a_server_says_what_is_left(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves alone what is being trained."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(tmp_path, *WANDB)
    with FileLock(result.folder / ".lock"):
        assert synced(tmp_path) == (0, [0, 0, 0, 1])
    server.status = 401
    assert synced(tmp_path) == (1, [0, 0, 1, 0])
    server.status = 200
    assert synced(tmp_path) == (0, [1, 0, 0, 0])


def test_sync_at_a_time_uploads_through_refusals_that_pass(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """429 and 5xx when a run is taken up and while its rows and files arrive; two processes, a line for each run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    results = [run(tmp_path, *WANDB, f"seed={seed}") for seed in (0, 1)]
    server.coming = (status for status in REFUSALS)
    done = script("sync.py", str(tmp_path), "--jobs", "2")
    assert next(server.coming, None) is None, "not all refusals were met"
    said = done.stdout.splitlines()
    assert sorted(said[:-1]) == sorted(f"uploaded: {result.folder}" for result in results), done
    assert (done.returncode, done.stderr) == (0, "")
    for result in results:
        assert scalars(server.runs[result.folder.name].rows) == history(result)


def test_sync_of_no_job_at_a_time_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    import sync

    with pytest.raises(SystemExit):
        sync.main([".", "--jobs", "0"])
    assert "argument --jobs: must be an integer >= 1, got '0'" in capsys.readouterr().err


def test_killed_upload_is_told_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sync

    class Pool(ThreadPoolExecutor):
        def __init__(self, jobs: int, **_: Any) -> None:
            super().__init__(jobs)

    def upload(folder: Path) -> tuple[str, str]:
        if folder.name == "b":
            raise BrokenProcessPool
        return "uploaded", ""

    monkeypatch.setattr(sync, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(sync, "upload", upload)
    found = {folder.name: what for folder, *what in sync.uploads([tmp_path / "a", tmp_path / "b"], 2)}
    assert found == {"a": ["uploaded", ""], "b": ["not uploaded", "a process of --jobs was killed"]}


def test_run_whose_server_went_away_is_uploaded_later(tmp_path: Path, server: Server) -> None:
    result = run_with_fault(tmp_path, *SHORT, server=server, fault={"status": 500})
    server.status = 200
    assert synced(tmp_path) == (0, [1, 0, 0, 0])
    assert scalars(server.runs[result.folder.name].rows) == history(result)


def test_trial_whose_server_went_away_stays_its_agents(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    monkeypatch.setenv("WANDB_RUN_ID", "trial1")
    result = run_with_fault(tmp_path, *SHORT, server=server, fault={"status": 500})
    server.status = 200
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name)
    assert synced(tmp_path) == (0, [1, 0, 0, 0])
    assert list(server.runs) == ["trial1"]
    assert scalars(server.runs["trial1"].rows) == history(result)
    assert synced(tmp_path) == (0, [0, 1, 0, 0])


def test_run_that_cannot_be_read_does_not_end_the_upload_of_others(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = run(tmp_path, *WANDB, "name=b")
    config = (result.folder / "config.yaml").read_text()
    stranger = config.replace("lifelong.tracking.loggers.wandb.WandbLogger", "my_package.Logger")
    assert stranger != config
    for name, text in {"a": stranger, "a2": "logger: [", "a3": None}.items():
        shutil.copytree(result.folder, tmp_path / name / result.folder.name)
        path = tmp_path / name / result.folder.name / "config.yaml"
        path.unlink() if text is None else path.write_text(text)
    assert synced(tmp_path) == (1, [1, 0, 3, 0])


def test_dashboard_twice_is_one_view_and_needs_an_account(server: Server) -> None:
    pytest.importorskip("wandb_workspaces", reason="needs the extra `dashboard`")
    done = [script("dashboard.py", "--project", "lifelong") for _ in range(2)]
    assert [each.stdout.partition(":")[0] for each in done] == ["made", "brought up to date"], done
    (view,) = server.views.values()
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("me", "lifelong", "Continual learning")
    section = json.loads(view["spec"])["section"]
    assert [group["name"] for group in section["runSets"][0]["grouping"]] == ["jobType"]
    assert all(key in view["spec"] for key in ("accuracy_matrix_image", "summary:strength", "summary:forgetting"))
    server.status = 401
    done = [script("dashboard.py")]
    assert (done[0].returncode, "Traceback" in done[0].stderr) == (1, False)
    assert "error: no dashboard: " in done[0].stderr


def test_dashboard_shows_measures_that_runs_have(tmp_path: Path) -> None:
    """A panel of a key that no run writes would stay empty."""
    pytest.importorskip("wandb_workspaces", reason="needs the extra `dashboard`")
    import dashboard

    result = run(tmp_path)
    keys = {*result.metrics, *(key for row in history(result) for key in row), "cost/samples_per_second"}
    for section in dashboard.workspace("us", "lifelong").sections:
        for panel in section.panels:
            axes = [getattr(panel, axis, None) or [] for axis in ("x", "y")]
            named = [key for axis in axes for key in (axis if isinstance(axis, list) else [axis])]
            assert {getattr(key, "name", key) for key in named} <= keys
