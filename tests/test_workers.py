"""Worker processes of a command: what they return, raise, and hear of signals."""

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from lifelong.launch.workers import WorkerError, in_workers
from lifelong.runs.interrupted import Interrupted

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks")


def done(work: Callable[[int], Any], num: int, meanwhile: Callable[[], None] = lambda: None) -> list[Any]:
    with in_workers(work, num) as found:
        meanwhile()
        return list(found)


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def test_results_come_in_order_whatever_their_size_and_the_order_they_are_made_in(tmp_path: Path) -> None:
    def work(i: int) -> tuple[int, bytes]:
        if i == 0:
            wait_for(tmp_path / "2")
        (tmp_path / str(i)).touch()
        return i, bytes(10**6)

    assert [(i, len(sent)) for i, sent in done(work, 3)] == [(0, 10**6), (1, 10**6), (2, 10**6)]
    assert active_children() == []


def test_one_piece_of_work_is_done_in_this_process() -> None:
    assert done(lambda i: os.getpid(), 1) == [os.getpid()]


def test_what_work_raises_is_raised_here_and_the_others_go_on_to_their_end(tmp_path: Path) -> None:
    def work(i: int) -> None:
        if i == 0:
            raise KeyError("a defect")
        time.sleep(0.5)
        (tmp_path / "end").touch()

    with pytest.raises(KeyError, match="a defect") as raised:
        done(work, 2)
    assert "in work" in str(raised.value.__cause__)  # the worker's own traceback
    assert (tmp_path / "end").exists()


def counting(folder: Path) -> Any:
    """Work that notes each signal it gets in half a second after the first, as one does that saves what it has."""

    def work(i: int) -> None:
        if i == 0:
            return
        heard: list[int] = []
        signal.signal(signal.SIGTERM, lambda signum, _: heard.append(signum))
        (folder / "ready").touch()
        while not heard:
            time.sleep(0.01)
        for _ in range(50):
            time.sleep(0.01)
        (folder / "heard").write_text(str(len(heard)))
        raise Interrupted(heard[0])

    return work


def test_signal_is_passed_on_once_though_other_workers_have_ended(tmp_path: Path) -> None:
    """A second one would end a run in the midst of its save."""

    def stop() -> None:
        wait_for(tmp_path / "ready")
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        done(counting(tmp_path), 2, stop)
    assert (tmp_path / "heard").read_text() == "1"
    assert active_children() == []


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_worker_that_is_ended_ends_the_others_which_save_first(tmp_path: Path, signum: int) -> None:
    def work(i: int) -> None:
        if i == 0:
            wait_for(tmp_path / "ready")
            os.kill(os.getpid(), signum)
        counting(tmp_path)(i)

    with pytest.raises(WorkerError, match="a worker process was stopped"):
        done(work, 2)
    assert (tmp_path / "heard").read_text() == "1"
