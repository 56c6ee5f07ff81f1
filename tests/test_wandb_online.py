"""Weights & Biases, online, against a server on 127.0.0.1: what arrives, and what a run does if nothing does."""

import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from lifelong.experiment.run import Result
from lifelong.tracking import read_history
from runs import TINY, command, run
from test_wandb import Killed, fault_at, history, kill_at, scalars
from wandb_log import rows
from wandb_server import KEY, Run, Server
from wandb_session import SHORT

pytestmark = pytest.mark.system  # starts W&B's own process, some wait for a server that does not answer


def arrived(server: Server, result: Result) -> Run:
    return server.runs[result.folder.name]


@pytest.mark.smoke
def test_online_run_arrives_whole(tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, *SHORT, "name=my_sweep", "logger.entity=us")
    kept = arrived(server, result)
    assert [scalars(row) for row in kept.rows] == history(result)
    assert (kept.given("groupName"), kept.given("jobType")) == ("my_sweep", "ewc")
    assert (kept.given("project"), kept.given("entity"), kept.given("tags")) == ("lifelong", "us", ["tiny"])
    assert kept.given("displayName") == "ewc λ=1000 · rotated digits · seed 0"
    assert kept.config["method.strength"] == 1000
    known = {key: value for key, value in result.metrics.items() if value is not None}
    assert {key: kept.summary[key] for key in known} == known
    assert kept.exit_codes == [0]
    tables = [json.loads(text) for name, text in kept.files.items() if name.startswith("media/table/accuracy_matrix_")]
    assert sorted(len(table["data"]) for table in tables) == [1, 2]
    pictures = [text for name, text in kept.files.items() if name.startswith("media/images/accuracy_matrix_image_")]
    assert [text[:4] for text in pictures] == [b"\x89PNG"] * 2
    assert len(server.artifacts) == 2
    assert capfd.readouterr().err == ""
    assert len(list(result.folder.glob("wandb/run-*/*.wandb.synced"))) == 1


def test_secrets_are_in_no_file_of_the_run_and_in_nothing_sent(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    result = run(tmp_path, *SHORT)
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(b"method.strength" in content for content in contents)
    sent = json.dumps([arrived(server, result).upserts, arrived(server, result).lines]).encode()
    for content in (*contents, *arrived(server, result).files.values(), sent):
        assert KEY.encode() not in content
        assert b"hf_0123456789" not in content


def test_interrupted_and_resumed_run_is_one_without_doubled_steps(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(tmp_path, *SHORT, "checkpoint_seconds=1e-9")
    result = run(tmp_path, *SHORT, "checkpoint_seconds=1e-9")
    assert list(server.runs) == [result.folder.name]
    kept = arrived(server, result)
    found = [scalars(row) for row in kept.rows]
    assert [row for i, row in enumerate(found) if row not in found[:i]] == history(result)
    assert kept.exit_codes == [1, 0]


def test_jobs_of_a_multirun_are_runs_of_one_group(tmp_path: Path, server: Server) -> None:
    options = [option for option in TINY if not option.startswith("logger")]
    done = command("-m", *options, *SHORT, f"root={tmp_path}", "method=ewc,si", "name=both")
    assert done.code == 0, done.err
    assert {kept.given("jobType") for kept in server.runs.values()} == {"ewc", "si"}
    assert {kept.given("groupName") for kept in server.runs.values()} == {"both"}
    for name, kept in server.runs.items():
        assert [scalars(row)["step"] for row in kept.rows] == [
            row["step"] for row in read_history(tmp_path / "both" / name / "history.jsonl")
        ]
        assert kept.exit_codes == [0]


def whole_and_said_once(result: Result, err: str) -> None:
    """The run is finished, and one line tells what became of its rows."""
    assert result.metrics["num_steps"] == 12
    assert len(history(result)) == 12
    (line,) = err.splitlines()
    assert line.startswith("W&B: ")
    assert line.endswith(": the run goes on offline, make sync uploads it later")


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 403}, {"status": 500}, {"silent": True}], ids=str)
def test_server_that_takes_no_run_does_not_hold_it_up(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str], fault: dict[str, Any]
) -> None:
    """The first run says so once; the second of the process does not even ask, and says nothing. Both are on disk."""
    vars(server).update(fault)
    begun = monotonic()
    result = run(tmp_path, *SHORT)
    assert monotonic() - begun < 3 + 2 * 3 + 6
    whole_and_said_once(result, capfd.readouterr().err)
    asked = len(server.requests)
    second = run(tmp_path, *SHORT, "seed=1")
    assert (len(server.requests), capfd.readouterr().err) == (asked, "")
    for done in (result, second):
        (path,) = done.folder.glob("wandb/offline-run-*/run-*.wandb")
        assert [scalars(row) for row in rows(path)] == history(done)


def test_no_server_at_all_does_not_hold_a_run_up(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # connection refused
    whole_and_said_once(run(tmp_path, *SHORT), capfd.readouterr().err)


def test_malformed_key_does_not_hold_a_run_up(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    result = run(tmp_path, *SHORT)
    err = capfd.readouterr().err
    whole_and_said_once(result, err)
    assert "short" not in err.replace("too short", "")


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 500}, {"silent": True}], ids=str)
def test_server_that_dies_in_the_midst_does_not_hold_a_run_up(
    tmp_path: Path,
    server: Server,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
) -> None:
    """All rows are in W&B's file on disk, which is not marked as uploaded."""
    fault_at(monkeypatch, 8, server, fault)
    begun = monotonic()
    result = run(tmp_path, *SHORT)
    assert monotonic() - begun < 3 + 2 * 3 + 6
    whole_and_said_once(result, capfd.readouterr().err)
    (path,) = result.folder.glob("wandb/run-*/run-*.wandb")
    assert [scalars(row) for row in rows(path)] == history(result)
    assert not path.with_name(f"{path.name}.synced").exists()


def test_slow_server_gets_everything_and_training_does_not_wait_for_it(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    server.delay = 0.5
    result = run(tmp_path, *SHORT, "logger.init_timeout=20", "logger.finish_timeout=20")
    assert result.metrics["train_seconds"] < 3
    assert [scalars(row) for row in arrived(server, result).rows] == history(result)
    assert capfd.readouterr().err == ""
