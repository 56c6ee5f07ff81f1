"""Samplers against their formulas written out sample by sample, and draws against the distribution they should follow.

Legend: N candidates of one class, D features, K columns, R repetitions of a draw.
"""

import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.examples import Examples, as_input
from lifelong.memory.base import ExemplarError, ExemplarMemory, drawn
from lifelong.memory.samplers import NEAREST, Entropy, MeanOfFeatures, PlaneDistance, Uniform, herded, nearness
from lifelong.models.learner import Learner
from lifelong.models.mlp import MLP

SAMPLERS: list[type[ExemplarMemory]] = [Uniform, PlaneDistance, Entropy, MeanOfFeatures]
LABEL = 2


def double_learner(columns: Sequence[int] = (0, 1, 2, 3)) -> Learner:
    learner = Learner(MLP((1, 3, 3), 5, widths=[7]), torch.optim.Adam, 5).double()
    learner.show(columns)
    return learner.eval()


def candidates(num: int) -> Examples:
    images = torch.randint(0, 256, (num, 1, 3, 3), generator=seeded(1)).to(torch.uint8)
    return Examples(images, torch.full((num,), LABEL))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(image: Tensor) -> Tensor:
    return as_input(image.unsqueeze(0)).double()


def distances_by_hand(learner: Learner, examples: Examples) -> list[float]:
    w = learner.backbone.head.weight[LABEL].tolist()
    rows = [learner.backbone.features(pixels(image))[0].tolist() for image in examples.inputs]
    return [sum(a * b for a, b in zip(phi, w, strict=True)) for phi in rows]


def plane_distance_by_hand(learner: Learner, examples: Examples) -> list[float]:
    d = [abs(v) for v in distances_by_hand(learner, examples)]
    nearest = NEAREST * sorted(d)[(len(d) - 1) // 2]
    return [1 / max(v, nearest) for v in d]


def entropy_by_hand(learner: Learner, examples: Examples) -> list[float]:
    result = []
    for image in examples.inputs:
        z = learner.backbone(pixels(image))[0]
        weights = [math.exp(z[c]) for c in range(5) if learner.visible[c]]
        result.append(-sum(w / sum(weights) * math.log(w / sum(weights)) for w in weights))
    return result


def herding_by_hand(features: Tensor, num: int) -> list[int]:
    """argmin over all x left of ‖mean(φ) − (φ(x) + Σ_chosen φ)/k‖, O(num · N · D)."""
    mean = sum(features) / len(features)
    chosen: list[int] = []
    for k in range(1, num + 1):
        left = [i for i in range(len(features)) if i not in chosen]
        total = sum((features[j] for j in chosen), torch.zeros_like(mean))
        chosen.append(min(left, key=lambda i: float(torch.linalg.norm(mean - (features[i] + total) / k))))
    return chosen


def normalised(values: Sequence[float]) -> Tensor:
    tensor = torch.as_tensor(values, dtype=torch.float64)
    return tensor / tensor.sum()


def chi_square(counts: Sequence[int], q: Sequence[float]) -> float:
    num = sum(counts)
    return sum((c - num * p) ** 2 / (num * p) for c, p in zip(counts, q, strict=True))


def assert_follows(counts: Sequence[int], q: Sequence[float]) -> None:
    """χ² of f degrees of freedom has mean f, variance 2f; a right sampler is 4 deviations off for one seed in 10³."""
    freedom = len(q) - 1
    assert chi_square(counts, q) < freedom + 4 * math.sqrt(2 * freedom)


# Scores -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "by_hand"),
    [(PlaneDistance, plane_distance_by_hand), (Entropy, entropy_by_hand)],
    ids=["plane_distance", "entropy"],
)
def test_scores_are_the_formula_up_to_a_factor(sampler: type[ExemplarMemory], by_hand: object) -> None:
    learner, examples = double_learner(), candidates(30)
    with torch.no_grad():
        got, want = sampler().scores(learner, examples), by_hand(learner, examples)  # type: ignore[operator]
    assert got.dtype == torch.float64
    torch.testing.assert_close(normalised(got.tolist()), normalised(want))


def test_plane_distance_is_the_formula_on_both_sides_of_the_plane() -> None:
    learner, examples = double_learner(), candidates(30)
    with torch.no_grad():
        mean = learner.backbone.features(as_input(examples.inputs).double()).mean(0)
        w = learner.backbone.head.weight[LABEL]
        w -= mean * (w @ mean) / (mean @ mean)  # the plane now goes through the middle of the class
        d = distances_by_hand(learner, examples)
        assert min(d) < 0 < max(d)
        got = PlaneDistance().scores(learner, examples)
        torch.testing.assert_close(
            normalised(got.tolist()), normalised(plane_distance_by_hand(learner, examples)), rtol=1e-9, atol=0
        )


def test_nearness_is_bounded_by_the_median() -> None:
    """0 and 1e-300 would be infinitely likelier than all others; here 1/NEAREST times the median one."""
    got = nearness(torch.tensor([0.0, 1e-300, 2.0, 2.0, 4.0], dtype=torch.float64))
    torch.testing.assert_close(got / got[2], torch.tensor([1 / NEAREST, 1 / NEAREST, 1, 1, 0.5], dtype=torch.float64))


def test_nearness_without_a_scale_takes_those_in_the_plane_first() -> None:
    assert nearness(torch.tensor([0.0, 3.0, 0.0, 0.0])).tolist() == [1, 0, 1, 1]
    assert nearness(torch.zeros(3)).tolist() == [1, 1, 1]


def test_entropy_is_safe_at_probability_zero() -> None:
    learner = double_learner()
    with torch.no_grad():
        learner.backbone.head.weight.mul_(1e6)
        scores = Entropy().scores(learner, candidates(30))
    assert bool(torch.isfinite(scores).all())
    assert bool((scores == 0).any())
    assert sorted(drawn(scores, 30, seeded(0)).tolist()) == list(range(30))


def test_entropy_sees_visible_columns_only() -> None:
    with torch.no_grad():
        learner, examples = double_learner([LABEL]), candidates(4)
        assert Entropy().scores(learner, examples).tolist() == [0, 0, 0, 0]
        learner.show([LABEL, 4])
        before = Entropy().scores(learner, examples)
        learner.backbone.head.bias[0] += 100
        torch.testing.assert_close(Entropy().scores(learner, examples), before, rtol=0, atol=0)


# Herding ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_herding_equals_the_loop_over_all_candidates(seed: int) -> None:
    features = torch.randn(40, 6, dtype=torch.float64, generator=seeded(seed)).relu() + seed
    assert herded(features, 40).tolist() == herding_by_hand(features, 40)


def test_herding_takes_the_features_of_the_network() -> None:
    learner, examples = double_learner(), candidates(25)
    with torch.no_grad():
        features = torch.cat([learner.backbone.features(pixels(i)) for i in examples.inputs])
        chosen = MeanOfFeatures().choose(learner, examples, 10, seeded(0))
    assert chosen.tolist() == herding_by_hand(features, 10)


def test_herding_of_equal_candidates_takes_each_once() -> None:
    assert sorted(herded(torch.ones(6, 3, dtype=torch.float64), 6).tolist()) == list(range(6))


# Draws --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "by_hand"),
    [(Uniform, lambda *_: [1] * 6), (PlaneDistance, plane_distance_by_hand), (Entropy, entropy_by_hand)],
    ids=["uniform", "plane_distance", "entropy"],
)
def test_first_choice_follows_q(sampler: type[ExemplarMemory], by_hand: object) -> None:
    learner, examples, memory, generator = double_learner(), candidates(6), sampler(), seeded(0)
    with torch.no_grad():
        q = normalised(by_hand(learner, examples)).tolist()  # type: ignore[operator]
        counts = Counter(int(memory.choose(learner, examples, 1, generator)) for _ in range(2000))
    assert_follows([counts[i] for i in range(6)], q)


def test_draws_without_replacement_follow_q_among_those_left() -> None:
    """P(i, then j) = q_i q_j / (1 − q_i): the order is that of the draws, so a shrunk cell is still a draw ∝ q."""
    q, generator = [0.1, 0.2, 0.3, 0.4], seeded(0)
    weights = torch.tensor(q, dtype=torch.float64) * 7
    counts = Counter(tuple(drawn(weights, 2, generator).tolist()) for _ in range(6000))
    pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
    assert set(counts) <= set(pairs)
    assert_follows([counts[pair] for pair in pairs], [q[i] * q[j] / (1 - q[i]) for i, j in pairs])


def test_zero_weights_come_last_and_are_equally_likely() -> None:
    weights, generator = torch.tensor([0, 1e-200, 0, 1, 0], dtype=torch.float64), seeded(0)
    draws = [drawn(weights, 3, generator).tolist() for _ in range(3000)]
    assert all(set(draw[:2]) == {1, 3} for draw in draws)
    counts = Counter(draw[2] for draw in draws)
    assert_follows([counts[i] for i in (0, 2, 4)], [1 / 3] * 3)


@pytest.mark.parametrize("sampler", [PlaneDistance, Entropy, MeanOfFeatures])
def test_diverged_network_is_an_error_of_its_own(sampler: type[ExemplarMemory]) -> None:
    learner = double_learner()
    with torch.no_grad():
        learner.backbone.body[1].weight.fill_(torch.nan)
        with pytest.raises(ExemplarError, match="not finite"):
            sampler().choose(learner, candidates(5), 2, seeded(0))


class Bag(nn.Module):
    """Token ids (B, L) → the mean of their embeddings → logits."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(20, 4), nn.Linear(4, 5)

    def features(self, x: Tensor) -> Tensor:
        return self.words(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exemplars_of_token_ids_are_chosen(sampler: type[ExemplarMemory]) -> None:
    learner = Learner(Bag(), torch.optim.Adam, 5).double().eval()
    ids = torch.randint(0, 20, (30, 6), generator=seeded(0))
    chosen = sampler().choose(learner, Examples(ids, torch.full((30,), LABEL)), 4, seeded(1))
    assert len(set(chosen.tolist())) == 4
