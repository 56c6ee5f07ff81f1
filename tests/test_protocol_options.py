"""What published protocols need of the template: iterations, an optimiser that is kept, a window, methods' options."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from omegaconf import open_dict
from torch.optim import Adam
from torch.testing import assert_close

import tiny
from lifelong.data.loader import Batch, Batches
from lifelong.experiment.parts import make_stream
from lifelong.experiment.run import Result, run_experiment
from lifelong.methods.method import Method
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.identity import identifier, identity
from runs import NUM_STEPS, composed_tiny, run, weights

pytestmark = pytest.mark.xdist_group("protocol options")  # whose runs are made once

KEPT = ("method=si", "keep_optimizer=true")
BY_STEPS = ("method=ewc", "trainer.max_epochs=-1", "trainer.max_steps=7")  # an epoch has three


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Result]:
    """The run of some settings, made once for all tests that read it."""
    return cache(lambda *settings: run(tmp_path_factory.mktemp("whole"), *settings))


# An optimiser that is kept -------------------------------------------------------------------------------------------


def test_kept_optimizer_counts_the_steps_of_all_tasks(whole: Callable[..., Result]) -> None:
    """Adam's bias correction starts over with an optimiser that is made anew; its step count says which it is."""
    kept = load_with_checksum(whole(*KEPT).folder / "last.ckpt")["optimizer"]
    assert {int(state["step"]) for state in kept.values()} == {NUM_STEPS}
    assert load_with_checksum(whole("method=si").folder / "last.ckpt")["optimizer"] is None


def test_kept_optimizer_changes_the_second_task_alone(whole: Callable[..., Result]) -> None:
    anew = whole("method=si")
    assert torch.equal(whole(*KEPT).matrix[0], anew.matrix[0])
    assert not torch.equal(whole(*KEPT).matrix[1], anew.matrix[1])


def test_kept_state_does_not_bring_its_learning_rate() -> None:
    stream = tiny.permuted()
    learner = tiny.make_learner(stream)
    before = learner.configure_optimizers()
    learner.training_step(Batch(torch.rand(4, *stream.input_shape), torch.tensor([0, 1, 0, 1])), 0).backward()
    before.step()
    before.param_groups[0]["lr"] = 123.0
    learner.optimizer_state = before.state_dict()["state"]
    assert learner.configure_optimizers().param_groups[0]["lr"] != 123.0


# Iterations ----------------------------------------------------------------------------------------------------------


def test_task_ends_after_max_steps_whatever_the_epochs(whole: Callable[..., Result]) -> None:
    assert whole(*BY_STEPS).metrics["num_steps"] == 14


def test_steps_within_the_epochs_equal_those_epochs(whole: Callable[..., Result]) -> None:
    assert torch.equal(whole().matrix, whole("trainer.max_epochs=-1", "trainer.max_steps=6").matrix)


# A window of the stream ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_tasks_of_a_window_are_those_of_the_whole_stream(scenario: str) -> None:
    whole, window = (tiny.split(scenario, order="reversed", window=w) for w in (None, [1, 3]))
    assert window.num_tasks == 2
    assert (window.names, window.order) == (whole.names[1:3], whole.order[1:3])
    assert window.num_classes == whole.num_classes
    for i in range(2):
        task, same = window.task(i), whole.task(i + 1)
        assert (task.classes, task.base) == (same.classes, same.base)
        for part in ("train", "val", "test"):
            ours, theirs = getattr(task, part), getattr(same, part)
            assert torch.equal(ours.inputs, theirs.inputs)
            assert torch.equal(ours.labels, theirs.labels)


def test_windows_of_one_stream_share_no_task() -> None:
    """The rule of A-GEM: what strengths are chosen on is none of what is reported."""
    chosen_on, reported = tiny.permuted(num_tasks=5, window=[0, 2]), tiny.permuted(num_tasks=5, window=[2, 5])
    assert not set(chosen_on.names) & set(reported.names)
    assert chosen_on.names + reported.names == tiny.permuted(num_tasks=5).names


def test_window_is_of_each_cycle() -> None:
    names = tiny.permuted(num_tasks=4, window=[1, 3], cycles=2).names
    assert names == ["perm1", "perm2", "perm1_cycle2", "perm2_cycle2"]


@pytest.mark.parametrize("window", [[0], [2, 2], [2, 1], [-1, 2], [0, 4], [0, 1.5], "01", 3])
def test_other_windows_are_refused(window: Any) -> None:
    allowed = r"^dataset.window must be \[first, stop\] with 0 <= first < stop <= 3 or null"
    with pytest.raises(ValueError, match=allowed):
        tiny.permuted(num_tasks=3, window=window)


# An optimiser that is made anew every epoch, batches in order, full batches alone -------------------------------------


def test_optimizer_of_an_epoch_equals_one_made_for_it(tmp_path: Path) -> None:
    """Bit-identical to a plain loop with a new Adam for each epoch."""
    stream = tiny.split()
    ours, plain = (tiny.make_learner(stream, make_optimizer=partial(Adam, lr=0.01)) for _ in range(2))
    ours.fresh_each_epoch = True
    tiny.fit(ours, Method(), stream.task(0).train, epochs=3)
    batches = Batches(stream.task(0).train, 16, seed=0)
    for _ in range(3):
        optimizer = Adam(plain.parameters(), lr=0.01)
        for x, y, _ in batches:
            optimizer.zero_grad()
            plain.loss(x, y).backward()
            optimizer.step()
    assert_close(ours.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_optimizer_of_an_epoch_is_one_of_a_task_of_one_epoch(whole: Callable[..., Result]) -> None:
    each, anew, longer = (
        whole("method=si", f"keep_optimizer={keep}", f"trainer.max_epochs={epochs}")
        for keep, epochs in (("epoch", 1), ("false", 1), ("epoch", 2))
    )
    assert_close(weights(each), weights(anew), rtol=0, atol=0)
    assert not torch.equal(longer.matrix, whole("method=si").matrix)


class Labels(Callback):
    """The labels of all training batches."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        self.seen.append(batch.y.clone())


@pytest.mark.parametrize("drop_last", [False, True])
def test_unshuffled_batches_are_the_source_s_in_each_epoch(drop_last: bool, tmp_path: Path) -> None:
    config, labels = composed_tiny(tmp_path, "shuffle=false", f"drop_last={drop_last}", "val_fraction=0"), Labels()
    result = run_experiment(config, callbacks=[labels])
    own = make_stream(config).task(0).train.labels
    epoch = [part for part in own.split(128) if len(part) == 128 or not drop_last]
    assert len(epoch) == (2 if drop_last else 3)
    assert_close(labels.seen, epoch * 4, rtol=0, atol=0)  # two tasks, two epochs
    assert result.metrics["num_steps"] == 4 * len(epoch)


def test_order_of_training_samples_changes_the_run(whole: Callable[..., Result]) -> None:
    assert not torch.equal(whole("shuffle=false").matrix, whole().matrix)


@pytest.mark.parametrize("memory", [(), ("memory=uniform", "memory.replay=balanced")])
def test_epochs_without_their_last_batch_have_that_many_steps_fewer(
    memory: tuple[str, ...], whole: Callable[..., Result]
) -> None:
    """A task's 319 samples are two full batches and 63 more."""
    assert whole("drop_last=true", *memory).metrics["num_steps"] == 8


def test_steps_do_not_depend_on_where_an_epoch_of_full_batches_ends(whole: Callable[..., Result]) -> None:
    by_steps = whole("drop_last=true", "trainer.max_epochs=-1", "trainer.max_steps=4")
    assert torch.equal(whole("drop_last=true").matrix, by_steps.matrix)


# Run ids -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "option"),
    [
        ("si", "gradient=total"),
        ("si", "clamp=false"),
        ("si", "reference=zero"),
        ("si", "ceiling=0.001"),
        ("rwalk", "half=false"),
        ("rwalk", "window=interval"),
        ("rwalk", "window=task"),
        ("rwalk", "decay=1.5"),
        ("ewcpp", "window=interval"),
        ("mas", "batch=128"),
        ("mas", "outputs=mean"),
        ("lwf", "weight=tasks"),
        ("lwf", "columns=visible"),
        ("lwf", "reduction=mean"),
        ("joint", "schedule=once"),
    ],
)
def test_later_option_of_a_method_is_part_of_a_run_id_only_where_it_is_not_the_default(
    method: str, option: str, tmp_path: Path
) -> None:
    key = option.split("=")[0]
    plain, chosen = (composed_tiny(tmp_path, f"method={method}", *o) for o in ((), (f"method.{option}",)))
    assert key in plain.method
    assert identity(chosen)["method"] == {**identity(plain)["method"], key: chosen.method[key]}
    now = identifier(plain)
    with open_dict(plain):
        del plain.method[key]  # as a run of before the option has it
    assert identifier(plain) == now != identifier(chosen)


def test_older_options_of_these_names_stay_in_run_ids(tmp_path: Path) -> None:
    assert identity(composed_tiny(tmp_path, "method=er", "memory=reservoir"))["method"]["weight"] == "sum"
