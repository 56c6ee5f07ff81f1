"""Who starts the ranks ends them all, and says why. Stand-ins for ranks that start in a moment."""

import json
import os
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from lifelong.distributed.ranks import RankError
from lifelong.launch import launcher
from lifelong.runs.interrupted import Interrupted

pytestmark = pytest.mark.system

launch = partial(launcher.launch, "stand_in")
FAILED = {"message": "importance is zero for every weight"}
LOST = {"message": "rank 0 has lost contact with another: Connection closed by peer", "after": 1}
KILLED = "rank 1 of 2 was ended by SIGKILL; the same command continues from the last checkpoint"
STOPPED = {"message": "", "signum": signal.SIGTERM, "then": "the same command continues: here"}
WAITING = json.dumps(["wait for a signal"] * 2)


@pytest.fixture(autouse=True)
def _stand_ins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("READY", str(tmp_path))


def wait_for(folder: Path, *names: str) -> None:
    while not all((folder / name).exists() for name in names):
        sleep(0.02)


@pytest.mark.parametrize(
    ("acts", "said"),
    [
        (["hang", "die"], KILLED),
        ([LOST, "die"], KILLED),
        ([LOST, FAILED], FAILED["message"]),
        ([LOST, "hang"], LOST["message"]),
        (["done", FAILED, "hang"], FAILED["message"]),
    ],
)
def test_rank_that_fails_ends_all_and_its_cause_is_said(
    acts: list[Any], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RankError) as error:
        launch(json.dumps(acts), len(acts))
    assert str(error.value) == said
    assert capfd.readouterr() == ("", "")


def test_ranks_that_finish_raise_nothing_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher.tempfile, "tempdir", str(tmp_path))
    launch(json.dumps(["done", "done"]), 2)
    assert not list(tmp_path.iterdir())


def test_signal_to_one_rank_interrupts_the_run() -> None:
    """As a cluster's memory guard may send it."""
    with pytest.raises(Interrupted, match="interrupted by SIGTERM; the same command continues: here"):
        launch(json.dumps([STOPPED, LOST]), 2)


def test_signal_is_handed_to_all_ranks_and_handlers_are_as_before(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def interrupt() -> None:
        wait_for(tmp_path, "0", "1")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt).start()
    with pytest.raises(Interrupted) as interrupted:
        launch(WAITING, 2)
    assert (interrupted.value.signum, interrupted.value.then) == (signal.SIGTERM, "the same command continues: here")
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "0 signalled", "1 signalled"}
    assert signal.getsignal(signal.SIGTERM) is before


def test_rank_sees_that_the_process_that_started_it_was_killed(tmp_path: Path) -> None:
    program = f"""
import sys
sys.path[:0] = {[p for p in sys.path if p]!r}
from lifelong.launch.launcher import launch
launch("stand_in", {WAITING!r}, 2)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL)
    wait_for(tmp_path, "0", "1")
    parent.kill()
    parent.wait()
    wait_for(tmp_path, "0 signalled", "1 signalled")
