"""A seat at a GPU: the emptiest one first, given back when its process dies."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

from lifelong.launch.slots import gpu_slot


def test_jobs_spread_over_the_gpus(tmp_path: Path) -> None:
    with ExitStack() as seats:
        taken = [seats.enter_context(gpu_slot(3, tmp_path)) for _ in range(7)]
    assert taken == [0, 1, 2, 0, 1, 2, 0]


def test_a_seat_given_back_is_taken_next(tmp_path: Path) -> None:
    with gpu_slot(2, tmp_path), ExitStack() as seats:
        first = seats.enter_context(ExitStack())
        assert first.enter_context(gpu_slot(2, tmp_path)) == 1
        assert seats.enter_context(gpu_slot(2, tmp_path)) == 0
        first.close()
        assert seats.enter_context(gpu_slot(2, tmp_path)) == 1


def test_a_dead_process_holds_no_seat(tmp_path: Path) -> None:
    sitting, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with gpu_slot(2, tmp_path) as gpu:
            os.write(tell, bytes([gpu]))
            signal.pause()
    assert os.read(sitting, 1) == bytes([0])
    with gpu_slot(2, tmp_path) as gpu:
        assert gpu == 1
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with gpu_slot(2, tmp_path) as gpu:
        assert gpu == 0
