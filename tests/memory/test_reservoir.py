"""The reservoir: uniform, offered each training sample of the stream once, and the same after a kill."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy.stats import chi2
from torch.optim import Adam
from torch.testing import assert_close

import reference
import tiny
from lifelong.data.examples import Examples
from lifelong.data.seeds import derive_seed
from lifelong.memory.reservoir import Reservoir
from tiny import make_learner, make_penalty

EXACT = {"rtol": 0.0, "atol": 0.0}


def numbered(num: int) -> Examples:
    """Sample n of class n % 6 is an image of n."""
    numbers = torch.arange(num)
    return Examples(numbers.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).clone(), numbers % 6)


def numbers(memory: Reservoir) -> list[int]:
    assert memory.examples is not None
    return memory.examples.inputs[:, 0, 0, 0].tolist()


def offered(size: int, num: int, batch_size: int, seed: int, learner: Any) -> Reservoir:
    memory = Reservoir(size)
    for start in range(0, num, batch_size):
        memory.offer(
            learner, numbered(num), np.arange(start, min(start + batch_size, num)), 0, derive_seed(seed, start)
        )
    return memory


@pytest.mark.parametrize("batch_size", [1, 7, 20])
@pytest.mark.parametrize("size", [1, 5, 20, 30])
def test_offers_in_batches_are_algorithm_r_one_sample_at_a_time(size: int, batch_size: int) -> None:
    memory = offered(size, 20, batch_size, 3, make_learner(tiny.split()))
    draws: list[int] = []
    for start in range(0, 20, batch_size):
        rng = np.random.default_rng(derive_seed(3, start))
        draws += [int(rng.integers(0, n + 1)) for n in range(start, min(start + batch_size, 20))]
    expected = reference.reservoir(draws, size)
    assert numbers(memory) == expected
    assert memory.examples is not None
    assert memory.examples.labels.tolist() == [n % 6 for n in expected]
    assert len(memory.tasks) == len(memory.logits) == len(expected)
    assert memory.num_offered == 20


def test_every_offer_is_held_equally_often() -> None:
    """χ² over 2,000 streams of 20 samples, 5 slots: Σ (O − E)²/(N p (1 − p)) · (n − 1)/n has n − 1 degrees of freedom,
    for p = 5/20 and counts with the covariance of draws without replacement."""
    num, size, repeats, learner = 20, 5, 2000, make_learner(tiny.split())
    learner.backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 2))
    counts = torch.zeros(num)
    for seed in range(repeats):
        counts[numbers(offered(size, num, 7, seed, learner))] += 1
    p = size / num
    statistic = float(((counts - repeats * p) ** 2).sum() / (repeats * p * (1 - p))) * (num - 1) / num
    assert chi2.sf(statistic, num - 1) > 0.01
    assert chi2.cdf(statistic, num - 1) > 0.01  # nor evener than chance


# In a whole stream --------------------------------------------------------------------------------------------------


def learned(
    method: str, memory: Reservoir, folder: Path, *callbacks: Callback, network: str = "mlp", **settings: Any
) -> Any:
    stream = tiny.split("class")
    learner = make_learner(stream, network, partial(Adam, lr=1e-2))
    tiny.run(stream, learner, make_penalty(method, **settings), folder, memory=memory, callbacks=callbacks, epochs=2)
    return learner


@pytest.mark.parametrize("method", ["finetune", "er"])
def test_each_training_sample_of_the_stream_is_offered_once(method: str, tmp_path: Path) -> None:
    """With room for all: neither a second epoch nor a replayed exemplar is a new offer."""
    stream, memory = tiny.split("class"), Reservoir(1000)
    learned(method, memory, tmp_path)
    assert memory.num_offered == 3 * 54
    for i in range(3):
        train, at = stream.task(i).train, torch.from_numpy(memory.tasks == i)
        ours = sorted(zip(memory.images[at].flatten(1).tolist(), memory.labels[at].tolist(), strict=True))
        assert ours == sorted(zip(train.inputs.flatten(1).tolist(), train.labels.tolist(), strict=True))


@pytest.mark.parametrize("network", list(tiny.NETWORKS))
def test_logits_are_those_of_the_moment_a_sample_entered(network: str, tmp_path: Path) -> None:
    """Of the network after that step, without dropout and with the running statistics of batch norm."""
    memory, moments = Reservoir(40), []

    class Look(Callback):
        tasks = torch.empty(0)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            before, now = moments[-1] if moments else torch.empty(0), memory.logits
            new = [i for i in range(len(now)) if i >= len(before) or not torch.equal(now[i], before[i])]
            moments.append(now.clone())
            if new:
                backbone = reference.frozen_copy(pl_module.backbone)
                assert_close(now[new].double(), backbone(memory.images[new].double() / 255), rtol=1e-4, atol=1e-5)
                self.tasks = torch.cat([self.tasks, torch.from_numpy(memory.tasks[new]).float()])

    look = Look()
    learned("er", memory, tmp_path, look, network=network)
    assert set(look.tasks.tolist()) == {0.0, 1.0, 2.0}
    assert len({tuple(z.flatten().tolist()) for z in moments}) > 3


@pytest.mark.parametrize("network", list(tiny.NETWORKS))
def test_offering_leaves_no_trace_in_training(network: str, tmp_path: Path) -> None:
    """Weights and batch norm's statistics of a stream in which nothing is replayed, with and without a reservoir."""
    found = []
    for memory in (tiny.Memory(), Reservoir(20)):
        learner = learned("er", memory, tmp_path, network=network, strength=0.0)
        found.append(tiny.weights_of(learner))
    assert_close(found[1], found[0], **EXACT)


def test_method_that_does_not_replay_trains_on_what_was_held_when_the_task_began(tmp_path: Path) -> None:
    seen: list[int] = []

    class Count(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(len(batch.y))

    learned("finetune", Reservoir(20), tmp_path, Count())
    assert sum(seen) == 2 * (3 * 54 + 2 * 20)


def test_size_does_not_grow_with_the_tasks(tmp_path: Path) -> None:
    memory, sizes, stream = Reservoir(20), [], tiny.split("class")
    penalty = make_penalty("der")
    tiny.run(stream, make_learner(stream), penalty, tmp_path, memory=memory, on_row=lambda _: sizes.append(
        (memory.state_bytes(), len(memory.labels))))  # fmt: skip
    assert sizes == [(20 * (64 + 8 + 6 * 4 + 8), 20)] * 3
    assert all(t.untyped_storage().nbytes() == t.nbytes for t in (memory.images, memory.labels, memory.logits))
