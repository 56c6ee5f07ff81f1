"""Weights & Biases, online, against a server on 127.0.0.1: what arrives, and what a run does if nothing does."""

import json
from pathlib import Path
from typing import Any

import pytest
import wandb
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lifelong.experiment.run import Result
from lifelong.plots.report.runs import read_runs
from lifelong.tracking.loggers.wandb import is_uploaded, kept_rows
from runs import TINY, at_every_batch, command, run
from wandb_log import rows
from wandb_server import KEY, Run, Server
from wandb_session import SHORT, WANDB, history, run_with_fault, scalars, wandb_file

pytestmark = pytest.mark.system  # starts W&B's own process, some wait for a server that does not answer


def arrived(server: Server, result: Result) -> Run:
    return server.runs[result.folder.name]


@pytest.mark.smoke
def test_online_run_arrives_whole(tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, *SHORT, "name=my_sweep", "logger.wandb.entity=us")
    kept = arrived(server, result)
    assert scalars(kept.rows) == history(result)
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
    assert is_uploaded(result.folder)
    assert list(read_runs(tmp_path)["state"]) == ["finished"]  # W&B leaves a config.yaml of its own in the run's folder


def test_extended_run_arrives_whole(tmp_path: Path, server: Server) -> None:
    """Rows of before have fewer tasks than those of now."""
    first = run(tmp_path, *SHORT, "dataset.angles=[0,30]")
    result = run(tmp_path, *SHORT, "dataset.angles=[0,30,60]", f"extend={first.folder}")
    kept = arrived(server, result)
    assert scalars(kept.rows) == history(result)
    tables = [json.loads(text) for name, text in kept.files.items() if name.startswith("media/table/accuracy_matrix_")]
    assert max(len(table["data"]) for table in tables) == 3
    assert is_uploaded(result.folder)


@pytest.mark.parametrize(("mode", "variable"), [("online", "offline"), ("offline", "online")])
def test_mode_of_the_configuration_comes_before_that_of_the_environment(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    mode: str, variable: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("WANDB_MODE", variable)
    result = run(tmp_path, *SHORT, f"logger.wandb.mode={mode}")
    assert list(server.runs) == [result.folder.name] * (mode == "online")
    assert ("W&B is offline (logger.wandb.mode=offline)" in capfd.readouterr().err) == (mode == "offline")


def test_secrets_are_in_no_file_and_in_nothing_sent(
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


def agent_command(parameters: dict[str, Any], *more: str) -> list[str]:
    """What a W&B agent runs for a trial of the sweep that docs/wandb.md describes, from train.py's arguments on."""
    text = (Path(__file__).parents[1] / "docs" / "wandb.md").read_text()
    sweep = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    words = create_sweep_command_args({"args": {key: {"value": value} for key, value in parameters.items()}})
    parts = [words.get(part[2:-1], [part]) for part in create_sweep_command([*sweep["command"], *more])]
    return [word for part in parts[3:] for word in part]


def test_trial_of_an_agent_logs_its_objective_also_if_it_was_finished_before(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "sweep1")
    trials = {"trial1": 10, "trial2": 100, "trial3": 10}  # the third asks for what the first has done
    said = {}
    for trial, strength in trials.items():
        wandb.teardown()  # an agent starts a process for each
        monkeypatch.setenv("WANDB_RUN_ID", trial)
        said[trial] = command(*agent_command({"method.strength": strength}, *TINY[:-2], f"root={tmp_path}", *SHORT[1:]))
        assert (said[trial].code, said[trial].err) == (0, "")
    assert ["finished before" in said[trial].out for trial in trials] == [False, False, True]
    assert list(server.runs) == list(trials)
    assert {kept.given("sweep") for kept in server.runs.values()} == {"sweep1"}
    kept = [server.runs[trial] for trial in trials]
    assert [run.config["method.strength"] for run in kept] == list(trials.values())
    assert scalars(kept[2].rows) == scalars(kept[0].rows)
    assert kept[2].summary["val_average_accuracy"] == kept[0].summary["val_average_accuracy"] > 0
    assert [run.exit_codes for run in kept] == [[0]] * 3


def whole_and_said_once(result: Result, err: str) -> None:
    """The run is finished, and one line tells what became of its rows."""
    assert result.metrics["num_steps"] == len(history(result)) == 12
    (line,) = err.splitlines()
    assert line.startswith("W&B is offline (")
    assert line.endswith(f"): the rows are in {result.folder}/wandb, make sync uploads them")


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 403}, {"status": 500}, {"silent": True}], ids=str)
def test_server_that_takes_no_run_does_not_hold_it_up(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str], fault: dict[str, Any]
) -> None:
    """The first run says so once; the second of the process does not even ask, and says nothing. Both are on disk."""
    vars(server).update(fault)
    result = run(tmp_path, *SHORT)
    whole_and_said_once(result, capfd.readouterr().err)
    asked = len(server.requests)
    second = run(tmp_path, *SHORT, "seed=1")
    assert (len(server.requests), capfd.readouterr().err) == (asked, "")
    for done in (result, second):
        assert scalars(rows(wandb_file(done.folder))) == history(done)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(("variable", "value"), [("WANDB_BASE_URL", "http://127.0.0.1:9"), ("WANDB_API_KEY", "short")])
def test_no_server_or_a_malformed_key_does_not_hold_a_run_up(
    variable: str, value: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv(variable, value)
    result = run(tmp_path, *SHORT)
    err = capfd.readouterr().err
    whole_and_said_once(result, err)
    assert value not in err.replace("too short", "") or variable == "WANDB_BASE_URL"


@pytest.mark.parametrize("fault", [{"status": 401}, {"status": 500}, {"silent": True}], ids=str)
def test_server_that_dies_in_the_midst_does_not_hold_a_run_up(
    fault: dict[str, Any], tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """All rows are in the run folder, and known not to be at the server."""
    result = run_with_fault(tmp_path, *SHORT, server=server, fault=fault)
    whole_and_said_once(result, capfd.readouterr().err)
    assert scalars(kept_rows(result.folder)) == history(result)
    assert not is_uploaded(result.folder)


def test_training_ends_before_the_server_has_answered_at_all_and_everything_arrives_then(
    tmp_path: Path, server: Server, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wake(_: Any, done: int) -> None:
        server.silent = done < 12

    server.silent = True
    at_every_batch(monkeypatch, wake)
    result = run(tmp_path, *WANDB, "logger.wandb.init_timeout=60", "logger.wandb.finish_timeout=60")
    assert scalars(arrived(server, result).rows) == history(result)
    assert capfd.readouterr().err == ""
