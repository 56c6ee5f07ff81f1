"""Who starts the ranks ends them all, and says why. Stand-ins for ranks that start in a moment."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from lifelong.distributed.ranks import RankError
from lifelong.launch import launcher as launching
from lifelong.launch.launcher import launch
from lifelong.runs.interrupted import Interrupted

pytestmark = pytest.mark.system

LOST = {"error": "rank 0 has lost contact with another: Connection closed by peer", "lost": True}
FAILED = {"error": "importance is zero for every weight", "lost": False}


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "RANK", "stand_in")
    monkeypatch.setattr(launching, "GRACE_SECONDS", 0.5)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def wait_for(*paths: Path) -> None:
    deadline = monotonic() + 60
    while not all(path.exists() for path in paths):
        assert monotonic() < deadline
        sleep(0.02)


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (["hang", "die"], "rank 1 of 2 was ended by SIGKILL; the same command continues from the last checkpoint"),
        ([LOST, "die"], "rank 1 of 2 was ended by SIGKILL; the same command continues from the last checkpoint"),
        ([LOST, FAILED], "importance is zero for every weight"),
        ([LOST, "hang"], "rank 0 has lost contact with another: Connection closed by peer"),
        (["done", FAILED, "hang"], "importance is zero for every weight"),
    ],
)
def test_rank_that_fails_ends_all_and_its_cause_is_said(acts: list[Any], said: str) -> None:
    began = monotonic()
    with pytest.raises(RankError) as error:
        launch(json.dumps(acts), len(acts))
    assert str(error.value) == said
    assert monotonic() - began < 20


def test_ranks_that_finish_raise_nothing() -> None:
    launch(json.dumps(["done", "done"]), 2)


def test_signal_to_one_rank_interrupts_the_run() -> None:
    """As a cluster's memory guard may send it."""
    stopped = {"signum": signal.SIGTERM, "then": "the same command continues: here"}
    with pytest.raises(Interrupted, match="interrupted by SIGTERM; the same command continues: here"):
        launch(json.dumps([stopped, LOST]), 2)


def test_signal_is_handed_to_all_ranks_and_handlers_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("READY", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        wait_for(tmp_path / "0", tmp_path / "1")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted) as interrupted:
        launch(json.dumps(["wait for a signal"] * 2), 2)
    assert (interrupted.value.signum, interrupted.value.then) == (signal.SIGTERM, "the same command continues: here")
    assert signal.getsignal(signal.SIGTERM) is before


def test_rank_sees_that_the_process_that_started_it_was_killed(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[p for p in sys.path if p]!r}
from lifelong.launch import launcher as launch
launch.RANK = "stand_in"
launch.launch('["orphan", "hang"]', 2)
"""
    environment = {**os.environ, "READY": str(tmp_path / "ready"), "ORPHANED": str(tmp_path / "seen")}
    parent = subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "ready")
    parent.kill()
    parent.wait()
    wait_for(tmp_path / "seen")
