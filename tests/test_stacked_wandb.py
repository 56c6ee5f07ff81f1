"""Each member of a stack has a W&B run of its own, as if it were alone."""

from pathlib import Path

import pytest

from lifelong.experiment.result import read_result
from lifelong.runs.folder import RunFolder
from lifelong.tracking.loggers.wandb import is_uploaded, kept_rows
from runs import Result
from stacks import interrupted_stack, last_line, stacked, without_pictures  # noqa: F401 - a fixture
from wandb_log import rows
from wandb_server import Server
from wandb_session import WANDB, history, scalars, wandb_file

pytestmark = pytest.mark.system  # starts W&B's own process
SWEEP = (*WANDB, "method=ewc,si", "seed=0,1")
ALL = "4 jobs: 4 trained, 0 finished before, 0 failed"


def results(root: Path) -> list[Result]:
    return [read_result(RunFolder(path.parent)) for path in sorted(root.glob("*/*/metrics.json"))]


def test_each_member_arrives_whole_in_a_run_of_its_own(tmp_path: Path, server: Server) -> None:
    """An interrupted one goes on in it."""
    interrupted_stack(tmp_path, 8, *SWEEP)
    said = stacked(tmp_path, *SWEEP)
    assert (last_line(said), said.err) == (ALL, "")
    assert "train together, 4 runs: jobs 0–3" in said.out
    found = results(tmp_path)
    assert sorted(server.runs) == [result.folder.name for result in found]
    for result in found:
        kept = server.runs[result.folder.name]
        assert scalars(kept.rows) == history(result)
        assert result.folder.name.startswith(f"{kept.given('jobType')}-")
        assert kept.given("displayName").endswith(f" · seed {kept.config['seed']}")
        known = {key: value for key, value in result.metrics.items() if value is not None}
        assert {key: kept.summary[key] for key in known} == known
        assert kept.exit_codes == [1, 0]
        assert is_uploaded(result.folder)


def test_members_of_stacks_in_worker_processes_arrive_too(tmp_path: Path, server: Server) -> None:
    said = stacked(tmp_path, *SWEEP, "hydra.launcher.n_jobs=2", "hydra.launcher.size=2")
    assert (last_line(said), said.err) == (ALL, "")
    found = results(tmp_path)
    assert sorted(server.runs) == [result.folder.name for result in found]
    for result in found:
        assert scalars(server.runs[result.folder.name].rows) == history(result)


@pytest.mark.usefixtures("wandb_afresh")
def test_members_are_offline_each_in_its_folder(tmp_path: Path) -> None:
    said = stacked(tmp_path, *SWEEP)
    assert last_line(said) == ALL
    assert said.err.count("W&B is offline (WANDB_MODE=offline)") == said.err.count("\n") == 1
    for result in results(tmp_path):
        assert scalars(rows(wandb_file(result.folder))) == history(result)


@pytest.mark.parametrize("fault", [{"status": 401}, {"silent": True}], ids=str)
def test_server_that_takes_no_run_does_not_hold_a_stack_up(
    tmp_path: Path, server: Server, fault: dict[str, object]
) -> None:
    vars(server).update(fault)
    said = stacked(tmp_path, *SWEEP, "logger.wandb.init_timeout=3", "logger.wandb.finish_timeout=3")
    assert last_line(said) == ALL
    assert (said.err.count("W&B is offline ("), said.err.count("\n")) == (1, 1)
    for result in results(tmp_path):
        assert scalars(kept_rows(result.folder)) == history(result)
        assert scalars(rows(wandb_file(result.folder))) == history(result)
        assert not is_uploaded(result.folder)
