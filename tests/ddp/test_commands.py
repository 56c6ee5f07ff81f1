"""The command with several processes: as a multirun, killed, interrupted and issued again."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import sleep

import pytest
import torch

from lifelong.experiment.result import read_result
from lifelong.runs.folder import RunFolder
from runs import TINY, assert_same_run, command, run, weights

pytestmark = pytest.mark.system

SETTINGS = ("method=rwalk", "method.interval=4", "backbone.dropout=0.2", "trainer=ddp_cpu", "trainer.max_epochs=12")
TRAIN = Path(__file__).resolve().parents[2] / "train.py"


def test_every_job_of_a_multirun_has_ranks_of_its_own(tmp_path: Path) -> None:
    said = command("--multirun", *TINY, "trainer=ddp_cpu", "seed=0,1", f"root={tmp_path}")
    assert (said.code, said.err) == (0, "")
    for seed in (0, 1):
        (path,) = tmp_path.glob(f"default/*-s{seed}-*/metrics.json")
        on_two, on_one = read_result(RunFolder(path.parent)), run(tmp_path / "one", f"seed={seed}")
        assert torch.equal(on_two.matrix, on_one.matrix)
        ours, theirs = weights(on_one), weights(on_two)
        assert all(float((ours[n] - theirs[n]).abs().max()) < 1e-6 for n in ours)
    again = command(*TINY, "trainer=ddp_cpu", f"root={tmp_path}", "progress=false")
    assert again.out.count("finished before, not trained again") == 1


def start(root: Path) -> subprocess.Popen[str]:
    paths = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": paths, "PYTHONWARNINGS": "ignore"}
    arguments = [*TINY, *SETTINGS, f"root={root}", "checkpoint_seconds=0.2"]
    program = [sys.executable, str(TRAIN), *arguments]
    return subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def rank_of(parent: int, rank: int) -> int:
    """Process id of a rank that `parent` started (Linux)."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    marked = f"LOCAL_RANK={rank}".encode()
    return next(int(pid) for pid in children if marked in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


def wait_until(condition: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    while not condition():
        assert command.poll() is None, command.communicate()
        sleep(0.01)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the ranks by /proc")
def test_killed_and_interrupted_command_continues_to_what_an_undisturbed_one_comes_to(tmp_path: Path) -> None:
    killed = start(tmp_path / "disturbed")
    wait_until(lambda: bool(list(tmp_path.rglob("last.ckpt"))), killed)
    os.kill(rank_of(killed.pid, 1), signal.SIGKILL)
    _, error = killed.communicate()
    assert killed.returncode == 1
    assert error == "error: rank 1 of 2 was ended by SIGKILL; the same command continues from the last checkpoint\n"

    (checkpoint,) = tmp_path.rglob("last.ckpt")
    before = checkpoint.stat().st_mtime_ns
    interrupted = start(tmp_path / "disturbed")
    wait_until(lambda: checkpoint.stat().st_mtime_ns > before, interrupted)
    interrupted.terminate()
    _, error = interrupted.communicate()
    assert interrupted.returncode == 128 + signal.SIGTERM
    assert error == f"interrupted by SIGTERM; the same command continues: {checkpoint.parent}\n"

    resumed = run(tmp_path / "disturbed", *SETTINGS)
    assert resumed.folder == checkpoint.parent
    assert_same_run(resumed, run(tmp_path / "undisturbed", *SETTINGS))
