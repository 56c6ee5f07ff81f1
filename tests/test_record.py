"""What a run has come to: position, rows and seconds."""

import pytest
import torch

from lifelong.runs import record as module
from lifelong.runs.record import PHASES, Record


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


def test_each_second_counts_to_the_innermost_phase(clock: Clock) -> None:
    record = Record()
    with record.timed("train"):
        clock.now += 1
        with record.timed("evaluation"):
            clock.now += 10
        clock.now += 2
    clock.now += 1000
    with record.timed("train"):
        clock.now += 3
    assert record.seconds == dict.fromkeys(PHASES, 0.0) | {"train": 6.0, "evaluation": 10.0}


def test_state_saved_within_a_phase_has_its_seconds_so_far_and_a_resumed_run_adds_to_them(clock: Clock) -> None:
    record, resumed = Record(), Record()
    with record.timed("train"):
        clock.now += 5
        state = record.state_dict()
        clock.now += 7
    assert state["seconds"]["train"] == 12.0  # the dict is the record's own: torch.save writes it at once
    assert record.seconds["train"] == 12.0
    state["seconds"] = {**state["seconds"], "train": 5.0}
    resumed.load_state_dict(state)
    with resumed.timed("train"):
        clock.now += 4
    assert resumed.seconds["train"] == 9.0


def test_state_is_plain(clock: Clock) -> None:
    record = Record()
    record.finish_task(3, torch.tensor([0.5, 0.25]), torch.tensor([0.5, float("nan")]))
    state = record.state_dict()
    assert (state["task"], state["step"], state["boundaries"], state["test"]) == (1, 3, [(0, 3)], [[0.5, 0.25]])
    assert not any(name.startswith("_") for name in state)
