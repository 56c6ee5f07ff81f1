"""Which jobs of a sweep stack, in stacks of what size, and what is said of those that do not."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lifelong.experiment.errors import composed
from lifelong.experiment.parts import make_stream
from lifelong.experiment.run import requested
from lifelong.stacked.plan import block_key, chunks, reason_alone, stack_key
from lifelong.stacked.sweep import CACHED_BYTES, FEW, Job, Plan, default_size
from runs import TINY, composed_tiny
from stacks import last_line, stacked, without_pictures  # noqa: F401 - a fixture

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ((), None),
        (("method=joint", "scheduler=cosine", "optimizer.lr=0.1", "method.exclude=[head]"), None),
        (("method=lwf",), "method=lwf is not hosted"),
        (("method=joint", "method.schedule=once"), "method.schedule=once"),
        (("memory=uniform",), "memory=uniform"),
        (("backbone=cnn",), None),
        (("backbone=cnn", "backbone.dropout=0.1"), "backbone.dropout=0.1"),
        (("backbone=resnet18",), "backbone=resnet18 is not hosted"),
        (("backbone.dropout=0.1",), "backbone.dropout=0.1"),
        (("backbone.freeze=[head]",), "backbone.freeze"),
        (("optimizer=sgd",), None),
        (
            ("optimizer._target_=torch.optim.Adafactor", "~optimizer.fused"),
            "optimizer._target_=torch.optim.Adafactor is not hosted",
        ),
        (("augment=affine",), "augment=affine"),
        (("early_stopping=patience",), "early_stopping=patience"),
        (("trainer.devices=2",), "trainer.devices=2"),
        (("trainer.precision=bf16-mixed",), "trainer.precision=bf16-mixed"),
        (("trainer.accumulate_grad_batches=2",), "trainer.accumulate_grad_batches=2"),
        (("trainer.limit_train_batches=2",), "trainer.limit_train_batches is not hosted"),
        (("compile=true",), "compile"),
        (("keep_optimizer=true",), None),
        (("evaluate_every_n_steps=9",), "evaluate_every_n_steps"),
    ],
)
def test_what_does_not_stack_says_why(tmp_path: Path, settings: Sequence[str], reason: str | None) -> None:
    other = ["~backbone.widths"] if any(s.startswith("backbone=") for s in settings) else []
    assert reason_alone(composed([*TINY, *other, *settings])) == reason


def test_stack_shares_all_but_seed_method_and_optimiser(tmp_path: Path) -> None:
    def key(*settings: str) -> str:
        return stack_key(composed_tiny(tmp_path, *settings), 0)

    for same in (
        "seed=3",
        "method=mas",
        "method.labels=sampled",
        "optimizer.lr=1",
        "optimizer=sgd",
        "method.strength=0",
    ):
        assert key(same) == key()
    for other in (
        "method=joint",
        "batch_size=7",
        "backbone.widths=[8]",
        "dataset.angles=[0,10]",
        "trainer.max_epochs=1",
    ):
        assert key(other) != key()
    assert stack_key(composed_tiny(tmp_path), 1) != key()


def test_block_shares_method_and_optimiser_but_for_the_strength(tmp_path: Path) -> None:
    def key(*settings: str) -> str:
        return block_key(composed_tiny(tmp_path, *settings))

    assert key("method.strength=3") == key("seed=1") == key()
    for other in ("method=mas", "method.labels=sampled", "method.strength=0", "optimizer.lr=1", "method.step=proximal"):
        assert key(other) != key()


def test_chunks_are_nearly_equal_and_hold_every_job_once() -> None:
    keys = {number: "ab"[number % 2] for number in range(11)}
    parts = chunks(keys, 4)
    assert [len(part) for part in parts] == [3, 4, 4]
    assert sorted(number for part in parts for number in part) == list(range(11))
    assert [keys[number] for part in parts for number in part] == ["a"] * 6 + ["b"] * 5


@pytest.mark.parametrize("key", ["size", "n_jobs"])
def test_size_and_n_jobs_are_refused_unless_positive_integers(tmp_path: Path, key: str) -> None:
    said = stacked(tmp_path, "seed=0,1", f"hydra.launcher.{key}=0")
    assert (said.code, said.out) == (1, "")
    assert said.err == f"error: hydra.launcher.{key} must be an integer >= 1 or null, got 0\n"
    assert not any(tmp_path.iterdir())


def test_a_job_that_cannot_be_composed_is_refused_before_any_trains(tmp_path: Path) -> None:
    said = stacked(tmp_path, "method=ewc,nope")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: method must be one of agem, ")
    assert not list(tmp_path.glob("*/*/history.jsonl"))


def test_several_stacks_at_a_time_have_one_thread_each(tmp_path: Path) -> None:
    said = stacked(tmp_path, "seed=0,1", "hydra.launcher.n_jobs=2", "num_threads=2")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: hydra.launcher.n_jobs must be 1 or null but on a CPU with num_threads=1, got 2")


def test_stacks_are_split_among_the_jobs_at_a_time_and_none_of_them_into_one(tmp_path: Path) -> None:
    job = Job(requested(composed_tiny(tmp_path)), make_stream(composed_tiny(tmp_path)))
    plan = Plan({"a": dict.fromkeys(range(20), job), "b": dict.fromkeys(range(20, 30), job)})
    assert [len(stack) for stack in plan.stacks(None, 1)] == [20, 10]
    assert [len(stack) for stack in plan.stacks(None, 2)] == [10, 10, 10]
    assert [len(stack) for stack in plan.stacks(None, 64)] == [2, 3, 3, 3, 3, 3, 3, 2, 3, 2, 3]
    assert [len(stack) for stack in Plan({"a": dict.fromkeys(range(4), job)}).stacks(None, 2)] == [2, 2]
    assert [len(stack) for stack in plan.stacks(12, 64)] == [10, 10, 10]


def test_jobs_that_are_left_over_by_full_stacks_say_so(tmp_path: Path) -> None:
    said = stacked(tmp_path, "seed=0,1,2", "hydra.launcher.size=2")
    assert "run alone (a stack holds at most 2): job 0" in said.out
    assert last_line(said) == "3 jobs: 3 trained, 0 finished before, 0 failed"


def test_default_size_follows_cache_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = composed_tiny(tmp_path)
    job = Job(requested(config), make_stream(config))
    assert default_size(job) == CACHED_BYTES // (4 * (64 * 16 + 16 + 16 * 10 + 10))
    monkeypatch.setattr("lifelong.stacked.sweep.CACHED_BYTES", 1)
    assert default_size(job) == FEW
    monkeypatch.setattr("lifelong.stacked.sweep.OUTPUT_BYTES", 3 * 4 * 128 * 64 + 1)  # of the inputs, flattened
    assert default_size(job) == 3
    monkeypatch.setattr("lifelong.stacked.sweep.os.sysconf", lambda key: 1)
    assert default_size(job) == 1
