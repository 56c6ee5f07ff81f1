"""The benchmark is honest: what ours is held to computes the same numbers, and every section runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from torch.utils.data import DataLoader

import benchmark
import tiny
from benchmarks import device, growth, importance, methods, stream
from benchmarks.steps import Driver
from benchmarks.table import Settings, Spread, Table, in_turn
from lifelong import importance as estimators

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")

TINY = stream.Workload(num_tasks=3, num_train=600, num_test=200, batch_size=50, widths=(32, 16))
FLOAT32 = {"rtol": 1e-4, "atol": 1e-6}  # sums in another order, carried along 36 steps of Adam


def test_floor_learns_the_weights_and_the_accuracies_of_ours() -> None:
    source = stream.read_source(TINY, None)
    ours, base = stream.learn_ours(TINY, source), stream.learn_floor(TINY, source)
    assert_close(base.weights, ours.weights, **FLOAT32)
    assert_close(base.matrix.double(), ours.matrix, rtol=0, atol=1e-6)


def test_penalty_is_more_than_rounding_in_that_comparison() -> None:
    source = stream.read_source(TINY, None)
    with_penalty, without = (stream.learn_floor(TINY, source, strength).weights for strength in (stream.STRENGTH, 0.0))
    assert (with_penalty - without).abs().max() > 100 * FLOAT32["atol"]


def test_loop_over_single_samples_finds_the_fisher_information() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 5), torch.nn.ReLU(), torch.nn.Linear(5, 4))
    x, y = torch.rand(6, 1, 3, 3), torch.randint(4, (6,))
    for labels in ("exact", "empirical"):
        expected = list(estimators.fisher(model, [(x, y)], labels=labels).values())
        assert_close(importance.lean_loop(model, x, y, labels), expected)


SMALL = Settings(repetitions=1, shrink=500)
NARROW = replace(device.ALL["ResNet-18"], network=("backbone=resnet18", "backbone.width=4"))
SECTIONS: dict[str, Callable[[], Table]] = {
    "importance": lambda: importance.measure(SMALL),
    "methods": lambda: methods.measure(SMALL, widths=(8,)),
    "stream": lambda: stream.measure(SMALL),
    "device": lambda: device.measure(SMALL, {"W4": device.ALL["W4"], "ResNet-18": NARROW}),
    "growth": lambda: growth.measure(SMALL, num_tasks=3, widths=(8,)),
}


@pytest.mark.parametrize(
    "section", [pytest.param(s, marks=[pytest.mark.system] if s in ("device", "methods") else []) for s in SECTIONS]
)
def test_section_measures_something_in_every_row(section: str) -> None:
    table = SECTIONS[section]()
    assert table.rows
    for row in table.rows:
        assert len(row) == len(table.columns)
        numbers = [c.median if isinstance(c, Spread) else c for c in row[1:] if c is not None]
        assert numbers
        assert all(number >= 0 for number in numbers)
    assert table.markdown().count("\n|") == len(table.rows) + 2


@pytest.mark.system
def test_state_of_the_methods_is_what_their_papers_keep() -> None:
    """Finetune nothing, anchor and importance for most; SI a path and a start besides, while it trains."""
    table = methods.measure(SMALL, widths=(8,))
    column = list(table.columns).index("state, P")
    state = {row[0]: row[column] for row in table.rows}
    assert set(state) == set(tiny.METHODS)
    expected = {"finetune": 0.0, "joint": 0.0, "ewc": 2.0, "l2": 2.0, "mas": 2.0, "scp": 2.0, "si": 4.0}
    assert {method: round(state[method], 2) for method in expected} == expected


@pytest.mark.parametrize("method", ["ewc", "rwalk"])
def test_driven_steps_are_those_of_a_trainer(method: str) -> None:
    """To the last bit, what the penalty saw included: the hooks come once a step and in a Trainer's order."""
    driven, fitted = (Driver(method, (8,), num_samples=64) for _ in range(2))
    for driver in (driven, fitted):
        driver.learn(num_tasks=1, num_steps=12)
    driven.start()
    driven.steps(12)
    batches = [driven.batches[step % len(driven.batches)] for step in range(12)]
    tiny.make_trainer(fitted.method).fit(fitted.learner, DataLoader(batches, batch_size=None))
    assert_close(driven.learner.state_dict(), fitted.learner.state_dict(), rtol=0, atol=0)
    assert_close(driven.method.state_dict(), fitted.method.state_dict(), rtol=0, atol=0)


def test_runs_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    results = in_turn({name: lambda name=name: calls.append(name) or len(calls) for name in "ab"}, 2)
    assert calls == list("ababab")
    assert results == {"a": [3, 5], "b": [4, 6]}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--repetitions", "-1", "--repetitions must be an integer >= 1, got -1"),
        ("--threads", "0", "--threads must be an integer >= 1, got 0"),
        ("--save", "nowhere", "--save must be a folder with performance.md, got 'nowhere'"),
        ("--fashion-mnist", "nowhere", "--fashion-mnist must be a folder with train-images-idx3-ubyte"),
    ],
)
def test_option_is_refused_before_anything_is_measured(
    option: str,
    value: str,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "SECTIONS", {"stream": pytest.fail})
    with pytest.raises(SystemExit):
        benchmark.main(["--sections", "stream", option, value])
    said = capsys.readouterr()
    assert message in said.err.splitlines()[-1]
    assert not said.out
