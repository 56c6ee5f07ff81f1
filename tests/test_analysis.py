"""Measures of weights: against loops over one weight or sample, by hand, and what they do not depend on."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
from lifelong.analysis import overlap as overlaps
from lifelong.analysis.cka import linear_cka
from lifelong.analysis.connectivity import barrier, between, scored
from lifelong.analysis.overlap import overlap
from lifelong.analysis.plasticity import activity, dormant, effective_rank, trainability, weight_norm
from lifelong.plots.analysed import FIGURES, MAX_LAYERS, layer_bars
from tiny import PENALTIES, learn_by_hand, make_learner, make_penalty, split, weights_of


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def importances(num_tasks: int, seed: int = 0) -> list[dict[str, Tensor]]:
    """Spread over decades, and zero for some weights."""
    shapes = {"body.1.weight": (5, 4), "body.1.bias": (5,), "head.weight": (3, 5), "scale": (2,)}
    found = []
    for task in range(num_tasks):
        each = {n: random(*shape, seed=100 * seed + 10 * task + i) for i, (n, shape) in enumerate(shapes.items())}
        found.append({name: (3 * x).exp() * (x.abs() > 0.2) for name, x in each.items()})
    return found


def listed(importance: dict[str, Tensor]) -> list[float]:
    return [x for omega in importance.values() for x in omega.flatten().tolist()]


# Importance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_overlap_is_the_loop_over_weights(seed: int) -> None:
    each = importances(4, seed)
    found, plain = overlap(each), [listed(importance) for importance in each]
    tops = [reference.top_weights(omega, 0.1) for omega in plain]
    held = [reference.claimed_weights(omega, 0.9) for omega in plain]
    num = len(plain[0])
    for i in range(4):
        for j in range(4):
            assert found["cosine"][i][j] == pytest.approx(reference.cosine(plain[i], plain[j]), rel=1e-12)
            assert found["top_share"][i][j] == pytest.approx(len(tops[i] & tops[j]) / len(tops[i]), rel=1e-12)
        assert found["claims"][i] == pytest.approx(len(held[i]) / num, rel=1e-12)
        assert found["claimed"][i] == pytest.approx(len(set().union(*held[: i + 1])) / num, rel=1e-12)
        parts = {
            "body.1": each[i]["body.1.weight"].sum() + each[i]["body.1.bias"].sum(),
            "scale": each[i]["scale"].sum(),
        }
        for layer, part in parts.items():
            share = found["by_layer"][i][found["layers"].index(layer)]
            assert share == pytest.approx(float(part) / math.fsum(plain[i]), rel=1e-5)  # float32 sums here
    assert found["layers"] == ["body.1", "head", "scale"]


def test_overlap_of_ten_weights_is_what_the_hand_finds() -> None:
    """Top 10 % is one weight. 6 + 3 = 9 of 10 are 90 % of the first; the second task claims one weight more."""
    one = {"a.weight": torch.tensor([6.0, 3, 1, 0, 0, 0, 0, 0]), "b.weight": torch.tensor([0.0, 0])}
    two = {"a.weight": torch.tensor([0.0, 4, 0, 0, 0, 0, 0, 0]), "b.weight": torch.tensor([5.0, 0])}
    found = overlap([one, two])
    assert found["top_share"] == [[1, 0], [0, 1]]
    assert found["claims"] == [0.2, 0.2]
    assert found["claimed"] == [0.2, pytest.approx(0.3)]
    assert found["cosine"][0][1] == pytest.approx(12 / math.sqrt(46 * 41))
    assert found["by_layer"] == [[1, 0], [pytest.approx(4 / 9), pytest.approx(5 / 9)]]


def test_overlap_with_itself_is_one_whatever_its_scale() -> None:
    (one,) = importances(1)
    found = overlap([one, {name: 1e-6 * omega for name, omega in one.items()}])
    assert_close(torch.tensor(found["cosine"]), torch.ones(2, 2), rtol=0, atol=1e-6)  # 1e-6 is rounded to float32
    assert found["top_share"] == [[1, 1], [1, 1]]
    assert found["claimed"] == found["claims"]


def test_weight_of_no_importance_is_nobodys_top() -> None:
    sparse = torch.zeros(40)
    sparse[3] = 1.0
    assert overlaps.top(sparse, 0.1).nonzero().flatten().tolist() == [3]
    assert overlaps.holding(sparse, 0.9).nonzero().flatten().tolist() == [3]
    assert not overlaps.top(torch.zeros(40), 0.1).any()
    assert math.isnan(overlap([{"a": torch.zeros(4)}, {"a": torch.ones(4)}])["cosine"][0][1])


@pytest.mark.parametrize("method", PENALTIES)
def test_importance_of_a_task_is_that_of_a_method_that_learned_it_alone(method: str) -> None:
    """Both walk the same way, as strength is 0; α = 1 leaves nothing of earlier tasks in a moving average at a task's
    end. RWalk measures a task's first interval by the F it begins with, which is therefore given."""
    settings = {"strength": 0, **({"alpha": 1.0} if method in ("ewcpp", "rwalk") else {})}
    learner = make_learner(split())
    both, alone = make_penalty(method, **settings), make_penalty(method, **settings)
    both.keeps_importance = alone.keeps_importance = True
    learn_by_hand(both, learner, 0)
    twin = copy.deepcopy(learner)
    if method == "rwalk":
        alone.fisher = copy.deepcopy(both.fisher)
    learn_by_hand(both, learner, 1)
    learn_by_hand(alone, twin, 1)
    assert_close(weights_of(learner), weights_of(twin), rtol=0, atol=0)
    assert_close(both.task_importance, alone.task_importance, rtol=0, atol=0)
    scale = both.gamma if method == "online_ewc" else 1  # what is held of F is γF
    held = {name: omega * scale for name, omega in alone.task_importance.items()}
    assert_close(held, dict(alone.importance_shown))
    assert all(float(omega.min()) >= 0 for omega in both.task_importance.values())


# Lines and representations ----------------------------------------------------------------------------------------


def test_line_begins_and_ends_at_its_ends_to_the_last_bit() -> None:
    a, b = ({"w": random(50, seed=s), "steps": torch.tensor(s)} for s in (1, 2))
    assert torch.equal(between(a, b, 0.0)["w"], a["w"])
    assert torch.equal(between(a, b, 1.0)["w"], b["w"])
    assert_close(between(a, b, 0.3)["w"], 0.7 * a["w"] + 0.3 * b["w"])
    assert between(a, b, 0.3)["steps"] == 2


def test_barrier_is_the_height_over_the_straight_line() -> None:
    assert barrier([1.0, 3.0, 2.0], [0.0, 0.5, 1.0]) == 1.5
    assert barrier([1.0, 0.5, 2.0], [0.0, 0.5, 1.0]) == 0.0


@torch.no_grad()
@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_score_is_the_mean_over_single_samples(scenario: str) -> None:
    stream = split(scenario)
    learner, examples = make_learner(stream).eval(), stream.task(1).test
    learner.show(stream.visible(1, 1))
    images, labels = learner.as_input(examples.inputs), examples.labels
    each = [
        (learner(x[None]).argmax() == y, learner.loss(x[None], y[None])) for x, y in zip(images, labels, strict=True)
    ]
    accuracy, loss = scored(learner, examples)
    assert accuracy == sum(int(right) for right, _ in each) / len(each)
    assert loss == pytest.approx(sum(float(value) for _, value in each) / len(each), rel=1e-5)


def test_cka_is_the_ratio_of_hsic() -> None:
    x, y = random(12, 5), random(12, 7, seed=1)
    y[:, :3] += 2 * x[:, :3]
    assert float(linear_cka(x, y)) == pytest.approx(reference.hsic_cka(x, y), rel=1e-9)


def test_cka_does_not_see_rotation_scale_shift_or_the_order_of_samples() -> None:
    x, y = random(30, 6).double(), random(30, 8, seed=1).double()
    rotation, _ = torch.linalg.qr(random(6, 6, seed=2).double())
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert_close(linear_cka(x, x), torch.tensor(1.0, dtype=torch.float64))
    assert_close(linear_cka(x, 7 * x @ rotation + 3), torch.tensor(1.0, dtype=torch.float64))
    assert_close(linear_cka(3 * x @ rotation - 1, y), linear_cka(x, y))
    assert_close(linear_cka(x[order], y[order]), linear_cka(x, y))
    assert_close(linear_cka(y, x), linear_cka(x, y))
    assert float(linear_cka(x, x @ torch.diag(torch.tensor([9.0, 1, 1, 1, 1, 1]).double()))) < 0.99


# Plasticity -------------------------------------------------------------------------------------------------------


def test_effective_rank_counts_equal_directions() -> None:
    q, _ = torch.linalg.qr(random(20, 6))
    for k in range(1, 7):
        assert effective_rank(q[:, :k]) == pytest.approx(k, rel=1e-5)  # q is float32
    phi = random(20, 6).relu()
    assert effective_rank(phi) == pytest.approx(reference.entropy_rank(phi), rel=1e-6)
    assert effective_rank(5 * phi) == pytest.approx(effective_rank(phi))


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_activity_is_the_mean_over_single_samples(network: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.analysis.plasticity.BATCH_SIZE", 25)  # the last batch is smaller
    stream = split()
    learner, examples = make_learner(stream, network).eval(), stream.task(0).train
    found = activity(learner, examples)
    body, sums = learner.backbone.body, dict.fromkeys(found, 0.0)  # type: ignore[union-attr]
    for x in learner.as_input(examples.inputs):
        h = x[None]
        for i, module in enumerate(body):  # type: ignore[arg-type]
            h = module(h)
            if isinstance(module, nn.ReLU):
                units = h[0].detach().double().abs()
                sums[f"body.{i}"] = sums[f"body.{i}"] + (units.mean((1, 2)) if units.dim() == 3 else units)  # type: ignore[assignment]
    assert sums.keys() == found.keys()
    assert_close(found, {name: total / len(examples) for name, total in sums.items()}, rtol=1e-6, atol=1e-9)


def test_dormant_units_are_those_that_are_dead() -> None:
    stream = split()
    learner = make_learner(stream).eval()
    before = dormant(activity(learner, stream.task(0).test))
    with torch.no_grad():
        learner.backbone.body[1].bias.fill_(5.0)  # type: ignore[index, union-attr, operator]
        learner.backbone.body[1].bias[:3] = -1e3  # type: ignore[index, union-attr, operator]
    assert dormant(activity(learner, stream.task(0).test)) == 3 / 16
    assert before < 1
    assert dormant({"a": torch.zeros(4)}) == 1
    assert dormant({"a": torch.tensor([0.0249, 0.0251, 2.0, 1.95]), "b": torch.ones(4)}) == 1 / 8
    assert math.isnan(dormant({}))


def test_weight_norm_is_that_of_one_vector() -> None:
    learner = make_learner(split())
    assert weight_norm(learner) == pytest.approx(
        math.sqrt(sum(float(p) ** 2 for t in learner.parameters() for p in t.detach().flatten()))
    )


def test_trainability_leaves_the_learner_and_the_generator_alone() -> None:
    stream = split()
    learner, examples = make_learner(stream, "cnn").eval(), stream.task(0).train
    before, state = weights_of(learner), torch.get_rng_state()
    found = [trainability(learner, examples, steps, 16) for steps in (0, 40, 40)]
    assert found[1] == found[2]
    assert found[1][1] < found[0][1]  # a loss over 54 samples that 40 steps fit
    assert_close(weights_of(learner), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in learner.parameters())


# Pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_layers", [1, MAX_LAYERS, 30])
def test_layer_bars_hold_all_of_the_importance(num_layers: int) -> None:
    shares = random(4, num_layers).abs()
    bars = layer_bars([f"l{i}" for i in range(num_layers)], (shares / shares.sum(1, keepdim=True)).tolist())
    assert len(bars) == min(num_layers, MAX_LAYERS)
    assert_close(torch.tensor(sum(bars.values())), torch.full((4,), 100.0), check_dtype=False)


@pytest.mark.parametrize("num", [2, pytest.param(26, marks=pytest.mark.system)])
def test_figures_take_two_tasks_and_many(num: int) -> None:
    names = [f"task_{i}" for i in range(num)]
    nan = [[None] * num for _ in range(num)]
    line = {"accuracy": [[0.5, 0.6]] * num, "loss": [[1.0, 2.0]] * num}
    lines = [{"from": i, "to": j, **line} for j in range(num) for i in range(j)]
    each = dict.fromkeys(("dormant_units", "effective_rank", "weight_norm"), 0.5)
    labels = {key: [0.5] for key in ("shuffled_accuracy", "fresh_shuffled_accuracy")}
    measures = {
        "overlap": overlap(importances(num)),
        "connectivity": {"shares": [0.0, 1.0], "lines": lines},
        "cka": {"own": nan, "by_task": torch.ones(num, num, num).tolist()},
        "plasticity": {"ends": [num - 1], **{k: [v] for k, v in each.items()}, **labels, "fresh": each, "tau": 0.1,
                       "num_steps": 3},
    }  # fmt: skip
    for measure, (_, draw) in FIGURES.items():
        draw(measures[measure], names, "title").draw_without_rendering()


def test_figures_of_a_dead_network_have_gaps() -> None:
    """Features that are all alike have no CKA, no rank, no dormant units: null in analysis.json."""
    each = dict.fromkeys(("dormant_units", "effective_rank"), None) | {"weight_norm": 0.5}
    labels = {"shuffled_accuracy": [0.5, 0.5], "fresh_shuffled_accuracy": [0.5, 0.5]}
    found = {"ends": [0, 1], **{k: [v, v] for k, v in each.items()}, **labels, "fresh": each}
    plasticity = FIGURES["plasticity"][1](found | {"tau": 0.1, "num_steps": 3}, ["a", "b"], "title")
    plasticity.draw_without_rendering()
    assert plasticity.axes[0].get_ylim() == (0, 1)
    nothing = {"own": [[None] * 2] * 2, "by_task": [[[None] * 2] * 2] * 2}
    cka = FIGURES["cka"][1](nothing, ["a", "b"], "title")
    cka.draw_without_rendering()
    assert {text.get_text() for axes in cka.axes[:2] for text in axes.texts} == {"–"}
