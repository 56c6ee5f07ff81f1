"""MLflow and Trackio, read back from their local databases: what they hold is what the history says."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lifelong.tracking import About
from lifelong.tracking.loggers.mlflow import MLflow, renamed
from runs import TINY, command, run, run_killed
from wandb_session import history, points

KILLED = ("checkpoint_steps=4",)
NAMES = ("猫-犬", "鳥-魚", "a+b", "ab", "+b", "b+", "b")
"""Of tasks."""


@pytest.mark.parametrize("name", ["mlflow", "trackio"])
def test_logger_that_is_not_installed_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    said = command(*TINY, f"root={tmp_path}", f"logger={name}")
    assert said.err.startswith(f"error: logger.{name}: {name} is not installed: pip install 'lifelong[{name}]'")
    assert (said.code, said.err.count("\n")) == (1, 1)


@pytest.mark.system
@pytest.mark.parametrize("killed", [False, True])
def test_mlflow_has_each_row_of_the_history_once(tmp_path: Path, killed: bool) -> None:
    """Killed two rows after its last checkpoint and resumed, too; its own SQLite file below the runs' root."""
    tracking = pytest.importorskip("mlflow.tracking", reason="needs the extra `mlflow`")
    if killed:
        run_killed(tmp_path, "logger=mlflow", *KILLED, step=10)
    result = run(tmp_path, "logger=mlflow", "+logger.mlflow.tags.who=me", *KILLED)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lifelong")
    (kept,) = client.search_runs([experiment.experiment_id])
    tags = {key: kept.data.tags[key] for key in ("lifelong.run_id", "method", "who")}
    assert tags == {"lifelong.run_id": result.folder.name, "method": "ewc", "who": "me"}
    assert (kept.info.status, kept.data.params["batch_size"]) == ("FINISHED", "128")
    expected = points(history(result))
    found = {key: [(m.step, m.value) for m in client.get_metric_history(kept.info.run_id, key)] for key in expected}
    assert found == expected
    assert kept.data.metrics["summary/average_accuracy"] == pytest.approx(result.metrics["average_accuracy"])
    pictures = [Path(file.path).name for file in client.list_artifacts(kept.info.run_id, "accuracy_matrix")]
    assert pictures[-1] == "00000012.png"
    assert (tmp_path / "mlflow" / kept.info.run_id / "artifacts" / "accuracy_matrix" / pictures[-1]).exists()


def test_names_for_mlflow_are_of_its_letters_and_no_two_the_same() -> None:
    names = [*NAMES, "a b", "a 2b b", "a20b", "a+2b", "a2b"]
    found = list(renamed(dict.fromkeys(names, 0.0)))
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_/. -]+", name) for name in found)
    assert list(renamed({"test/accuracy/classes_0-4.5": 1.0})) == ["test/accuracy/classes_0-4.5"]


@pytest.mark.system
def test_mlflow_keeps_tasks_apart_of_whatever_names(tmp_path: Path) -> None:
    """In the history that it begins with, in a row, and in the summary."""
    tracking = pytest.importorskip("mlflow.tracking", reason="needs the extra `mlflow`")
    row = {f"test/accuracy/{name}": float(i) for i, name in enumerate(NAMES)}
    (tmp_path / "history.jsonl").write_text(json.dumps({"step": 1, **row}) + "\n")
    logger = MLflow(About(tmp_path, "ewc-0", "ewc", "ewc", {"root": str(tmp_path)}), "lifelong", None, {})
    logger.log_metrics(row, 2)
    logger.summarise(row)
    client = tracking.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (kept,) = client.search_runs([client.get_experiment_by_name("lifelong").experiment_id])
    found = [client.get_metric_history(kept.info.run_id, key) for key in kept.data.metrics]
    logged = sorted([(metric.step, metric.value) for metric in metrics] for metrics in found)
    assert logged == sorted([[(0, v)] for v in row.values()] + [[(1, v), (2, v)] for v in row.values()])


@pytest.mark.system
def test_jobs_that_start_together_make_one_database(tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    own = (
        "import sys; from pathlib import Path; from lifelong.tracking import About;"
        "from lifelong.tracking.loggers.mlflow import MLflow; root, name = sys.argv[1:];"
        "(Path(root) / name).mkdir(); (Path(root) / name / 'history.jsonl').touch(); print(flush=True); input();"
        "MLflow(About(Path(root) / name, name, name, 'ewc', {'root': root}), 'lifelong', None, {})"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", own, str(tmp_path), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for name in ("a", "b")
    ]
    for process in started:
        assert process.stdout.readline()  # both are ready
    for process in started:
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait() for process in started] == [0, 0]


@pytest.mark.system
def test_mlflow_that_does_not_answer_is_said_before_training_and_one_that_goes_away_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow", reason="needs the extra `mlflow`")
    uri = "http://127.0.0.1:9"
    for wrong in (uri, "foo://bar"):
        said = command(*TINY, f"root={tmp_path / 'a'}", "logger=mlflow", f"logger.mlflow.tracking_uri='{wrong}'")
        assert said.err.startswith(f"error: logger.mlflow: {wrong} cannot be used")
        assert (said.code, said.err.count("\n")) == (1, 1)
    calls = iter(range(3))
    from lightning.pytorch.loggers import MLFlowLogger

    def gone(*_: Any) -> None:
        if next(calls, None) is None:
            raise ConnectionError("gone")

    monkeypatch.setattr(MLFlowLogger, "log_metrics", gone)
    run(tmp_path / "b", "logger=mlflow")
    assert capsys.readouterr().err.count("MLflow stopped (gone): history.jsonl has every row") == 1


@pytest.mark.system
def test_trackio_has_each_row_of_the_history_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: Trackio reads TRACKIO_DIR once. Killed, resumed, and a second run beside it."""
    pytest.importorskip("trackio", reason="needs the extra `trackio`")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import trackio
from trackio.sqlite_storage import SQLiteStorage
from runs import run, run_killed
from test_services import KILLED
from wandb_session import history, points
root = Path({str(tmp_path)!r})
run_killed(root, "logger=trackio", *KILLED, step=10)
results = [run(root, "logger=trackio", *KILLED), run(root, "logger=trackio", "seed=1")]
kept = {{kept.name: kept for kept in trackio.Api().runs("lifelong")}}
assert set(kept) == {{result.folder.name for result in results}}, kept
for result in results:
    one = kept[result.folder.name]
    assert one.config["batch_size"] == 128 and one.config["title"].startswith("ewc"), one.config
    rows = SQLiteStorage.get_logs("lifelong", one.name)
    expected = points(history(result))
    found = {{key: [(row["step"], row[key]) for row in rows if key in row] for key in expected}}
    assert found == expected, (found, expected)
    assert rows[-1]["summary/average_accuracy"] == result.metrics["average_accuracy"]
    assert sum("accuracy_matrix_image" in row and "importance/log10/head.weight" in row for row in rows) >= 1
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, "Trackio" in done.stdout) == (0, False), done
