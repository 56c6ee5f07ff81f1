"""Ranks divide every batch into shards: each sample once, and the mean of all from the means of the shards."""

from itertools import chain

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny
from lifelong.data.augment import CropFlip
from lifelong.data.examples import Examples
from lifelong.data.loader import Batches
from lifelong.data.replay import BalancedBatches
from lifelong.distributed.ranks import Shard, from_rank_zero, gathered, largest_over_ranks, total_over_ranks
from lifelong.models.evaluation import accuracy, num_correct


def examples(num: int, offset: int = 0) -> Examples:
    images = torch.arange(offset, offset + num, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return Examples(images.contiguous(), torch.arange(num))


@given(num=st.integers(0, 50), ranks=st.integers(1, 9))
def test_shards_are_disjoint_and_together_the_whole(num: int, ranks: int) -> None:
    taken = [list(range(num))[Shard(rank, ranks).rows(0, num)] for rank in range(ranks)]
    assert sorted(chain.from_iterable(taken)) == list(range(num))
    assert [len(part) for part in taken] == [Shard(rank, ranks).count(num) for rank in range(ranks)]
    assert max(map(len, taken)) - min(map(len, taken)) <= 1


@given(num=st.integers(1, 50), ranks=st.integers(1, 9))
def test_weighted_mean_over_ranks_is_the_mean_over_samples(num: int, ranks: int) -> None:
    values = [float(i * i) for i in range(num)]
    parts = [(values[shard.rows(0, num)], shard.weight(num)) for shard in (Shard(r, ranks) for r in range(ranks))]
    mean = sum(weight * sum(part) / len(part) for part, weight in parts if part) / ranks
    assert mean == pytest.approx(sum(values) / num)


@pytest.mark.parametrize("resident_bytes", [1e9, 1])
@pytest.mark.parametrize("replayed", [0, 7])
@pytest.mark.parametrize(("num", "batch_size", "ranks"), [(10, 4, 2), (9, 4, 3), (9, 4, 4), (13, 6, 5)])
def test_batches_of_ranks_make_up_those_of_one_process(
    num: int, batch_size: int, ranks: int, replayed: int, resident_bytes: float
) -> None:
    """Over two epochs, augmented; a rank without a sample gets one of weight 0, and all give as many batches."""

    def batches(shard: Shard) -> Batches:
        options = {"seed": 3, "augment": CropFlip(1, 0.5), "shard": shard, "resident_bytes": resident_bytes}
        if replayed:
            return BalancedBatches(examples(num), examples(replayed, 100), batch_size, **options)
        return Batches(examples(num), batch_size, **options)

    whole, shards = batches(Shard()), [batches(Shard(rank, ranks)) for rank in range(ranks)]
    for _ in range(2):
        ours, theirs = list(whole), [list(loader) for loader in shards]
        assert {len(one) for one in theirs} == {len(ours)} == {len(whole)}
        for (x, y, weight), parts in zip(ours, zip(*theirs, strict=True), strict=True):
            assert weight == 1
            for rank, (x_r, y_r, weight_r) in enumerate(parts):
                rows = Shard(rank, ranks).rows(0, len(y)) if weight_r > 0 else slice(0, 1)
                assert torch.equal(x_r, x[rows])
                assert torch.equal(y_r, y[rows])
            assert sum(weight for *_, weight in parts) == pytest.approx(ranks)
            mean = sum(float(y_r.float().mean()) * weight for _, y_r, weight in parts) / ranks
            assert mean == pytest.approx(float(y.float().mean()))


@pytest.mark.parametrize("ranks", [1, 2, 3, 7, 70])
def test_evaluation_counts_every_sample_once(ranks: int) -> None:
    """60 samples: 7 ranks have unequal shards, of 70 ten have none."""
    stream = tiny.split()
    learner, test = tiny.make_learner(stream), Examples.concat([stream.task(i).test for i in range(3)])
    counts = [num_correct(learner, test, Shard(rank, ranks).rows(0, len(test))) for rank in range(ranks)]
    assert len(test) == 60
    assert sum(counts) / len(test) == accuracy(learner, test)


def test_alone_a_process_gets_back_what_it_gave() -> None:
    assert total_over_ranks(3) == 3
    assert largest_over_ranks(2, 5) == [2, 5]
    assert from_rank_zero("x") == "x"
    assert gathered(torch.arange(3)).tolist() == [[0, 1, 2]]
