"""K-FAC EWC: Kronecker factors against loops, dense matrices and curvlinops."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
import tiny
from lifelong.importance import fisher
from lifelong.importance.kronecker import kronecker_fisher
from lifelong.methods.kronecker import Kronecker
from tiny import make_learner, make_penalty, random_batches

Params = dict[str, Tensor]
LAYERS = {"mlp": ["body.1", "head"], "cnn": ["body.0", "body.3", "head"]}


def factors(network: str, batches: list[tiny.Pair], num_visible: int = 6) -> tuple[nn.Module, Params, Params, Params]:
    model = tiny.NETWORKS[network](6)
    names = [n for n, _ in model.named_parameters()]
    return model, *kronecker_fisher(model, batches, names, visible=torch.arange(6) < num_visible)


@pytest.mark.parametrize("network", LAYERS)
def test_factors_are_means_over_samples_positions_and_labels(network: str) -> None:
    """Batches of unequal size, some columns hidden; what is in no layer has EWC's diagonal."""
    torch.manual_seed(0)
    batches = [*random_batches(1, 4, size=5), *random_batches(1, 4, seed=1, size=3)]
    model, A, G, diagonal = factors(network, batches, num_visible=4)
    x = torch.cat([x for x, _ in batches])
    assert set(A) == set(G) == {f"{layer}.weight" for layer in LAYERS[network]}
    for layer in LAYERS[network]:
        expected = reference.kronecker_factors(model, x, layer, [0, 1, 2, 3])
        found = A[f"{layer}.weight"], G[f"{layer}.weight"]
        assert_close([t.double() for t in found], list(expected), rtol=1e-4, atol=1e-8)  # float32 sums
    whole = fisher(model, batches, visible=torch.arange(6) < 4)
    assert_close(diagonal, {n: F for n, F in whole.items() if n in diagonal})
    assert set(diagonal) == {n for n in whole if n.split(".")[1] in ("1", "4") and network == "cnn"}  # batch norm


@pytest.mark.parametrize("layer", LAYERS["mlp"])
def test_on_one_sample_it_is_the_exact_block_of_the_fisher(layer: str) -> None:
    torch.manual_seed(0)
    model = tiny.mlp(6).double()
    ((x, y),) = random_batches(1, 6, size=1)
    names = [n for n, _ in model.named_parameters()]
    A, G, _ = kronecker_fisher(model, [(x.double(), y)], names)
    expected = reference.fisher_block(model, x[0], [f"{layer}.weight", f"{layer}.bias"], [*range(6)])
    assert_close(torch.kron(G[f"{layer}.weight"], A[f"{layer}.weight"]), expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("network", LAYERS)
def test_curvlinops_agrees(network: str) -> None:
    """On a direction. It is not in the lock file: its backpack asks for torchvision, which would replace torch."""
    curvlinops = pytest.importorskip("curvlinops")
    torch.manual_seed(0)
    model = tiny.NETWORKS[network](6).double().eval()
    batches = [(x.double(), y) for x, y in random_batches(2, 6)]
    params = {n: p for n, p in model.named_parameters() if n.rpartition(".")[0] in LAYERS[network]}
    A, G, _ = kronecker_fisher(model, batches, list(params))
    options = {"fisher_type": "type-2", "separate_weight_and_bias": False}
    theirs = curvlinops.KFACLinearOperator(model, nn.CrossEntropyLoss(), list(params.values()), batches, **options)
    zeros, direction = ({n: make(p) for n, p in params.items()} for make in (torch.zeros_like, torch.randn_like))
    ours = {n: z.detach().clone() for n, z in zeros.items()}
    Kronecker(zeros, {n: [(A[n], G[n])] for n in A}, {}).add_gradient_(ours, direction, 1.0)
    assert_close(list(ours.values()), theirs @ list(direction.values()), rtol=1e-9, atol=1e-12)


# The quadratic ------------------------------------------------------------------------------------------------------


def drawn_quadratic(num_pairs: int) -> tuple[Kronecker, Params]:
    """Of a layer with a bias, a convolution without one, and a parameter in no layer; θ away from the anchor."""
    g = torch.Generator().manual_seed(0)
    shapes = {"a.weight": (3, 4), "a.bias": (3,), "b.weight": (2, 3, 2, 2), "c": (5,)}
    anchor, params = ({n: torch.randn(s, generator=g, dtype=torch.float64) for n, s in shapes.items()} for _ in "θ*")

    def factor(size: int) -> Tensor:
        root = torch.randn(size, size - 1, generator=g, dtype=torch.float64)  # singular
        return root @ root.T

    pairs = {
        n: [(factor(d), factor(o)) for _ in range(num_pairs)] for n, d, o in (("a.weight", 5, 3), ("b.weight", 12, 2))
    }
    return Kronecker(anchor, pairs, {"c": torch.rand(5, generator=g, dtype=torch.float64)}), params


def departures(quadratic: Kronecker, params: Params) -> list[Tensor]:
    moved = {n: p - quadratic.anchor[n] for n, p in params.items()}
    return [torch.cat([moved["a.weight"], moved["a.bias"].unsqueeze(1)], 1), moved["b.weight"].flatten(1)]


def written(quadratic: Kronecker, params: Params) -> Tensor:
    rest = (quadratic.importance["c"] * (params["c"] - quadratic.anchor["c"]) ** 2).sum()
    return reference.kronecker_value(departures(quadratic, params), list(quadratic.pairs.values())) + rest


@pytest.mark.parametrize("num_pairs", [1, 3])
def test_value_and_gradient_are_those_of_the_dense_matrix(num_pairs: int) -> None:
    quadratic, params = drawn_quadratic(num_pairs)
    leaves = {n: p.clone().requires_grad_() for n, p in params.items()}
    value = written(quadratic, leaves)
    slopes = torch.autograd.grad(value, list(leaves.values()))
    assert_close(quadratic.value(params), value.detach())
    grads = {n: torch.ones_like(p) for n, p in params.items()}
    quadratic.add_gradient_(grads, params, 3.0)
    assert_close(grads, {n: 1 + 1.5 * s for n, s in zip(params, slopes, strict=True)})
    norm = 0.5 * torch.cat([s.flatten() for s in slopes]).norm()
    assert_close(quadratic.gradient_norm(params), norm)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e12])
def test_proximal_step_solves_the_stationarity_equation(scale: float) -> None:
    """θ' − θ + scale · ½ ∂q/∂θ' = 0; relative to its largest term, for at 10¹² that is what is rounded."""
    quadratic, params = drawn_quadratic(1)
    before = {n: p.clone() for n, p in params.items()}
    quadratic.proximal_step_(params, scale, set(params))
    rest = {n: (p - before[n]) / scale for n, p in params.items()}
    quadratic.add_gradient_(rest, params, 1.0)
    for n, r in rest.items():
        assert float(r.abs().max()) < 1e-9 * max(1.0, 1.0 / scale), n


def test_proximal_step_leaves_the_parameters_of_other_groups_alone() -> None:
    quadratic, params = drawn_quadratic(1)
    before = {n: p.clone() for n, p in params.items()}
    quadratic.proximal_step_(params, 1.0, {"b.weight"})
    assert [n for n, p in params.items() if not p.equal(before[n])] == ["b.weight"]


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_curvature_and_diagonal_are_those_of_the_dense_matrix(num_pairs: int) -> None:
    quadratic, _ = drawn_quadratic(num_pairs)
    dense = [sum(torch.kron(G, A) for A, G in pairs) for pairs in quadratic.pairs.values()]
    largest = max(float(torch.linalg.eigvalsh(D)[-1]) for D in dense)
    assert quadratic.largest_curvature() >= largest * (1 - 1e-9)
    if num_pairs == 1:
        assert quadratic.largest_curvature() == pytest.approx(largest)
    omega = quadratic.diagonal()
    layer = torch.cat([omega["a.weight"], omega["a.bias"].unsqueeze(1)], 1)
    assert_close([layer.flatten(), omega["b.weight"].flatten()], [D.diagonal() for D in dense])
    assert_close(omega["c"], quadratic.importance["c"])


# Tasks --------------------------------------------------------------------------------------------------------------


def three_tasks(**settings: Any) -> tuple[Any, list[tuple[Params, Params, Params]]]:
    """The penalty after three tasks, its state's size after each, and the factors of each."""
    penalty, learner = make_penalty("kfac_ewc", **settings), make_learner(tiny.split(), "cnn")
    each = []
    for k in range(3):
        batches = random_batches(2, 2, seed=k)
        tiny.moved_off(learner, seed=k)
        tiny.after_task(penalty, learner, batches)
        names = [n for n, _ in learner.backbone.named_parameters()]
        each.append(kronecker_fisher(learner.backbone, batches, names, visible=learner.visible))
    return penalty, each


def test_one_pair_is_the_mean_of_inputs_and_the_sum_of_gradients() -> None:
    penalty, each = three_tasks()
    for n, ((A, G),) in penalty.quadratic.pairs.items():
        assert_close(A, sum(a[n] for a, _, _ in each) / 3)
        assert_close(G, sum(g[n] for _, g, _ in each))
    for n, omega in penalty.importance.items():
        assert_close(omega, sum(d[n] for _, _, d in each))


def test_sum_holds_a_pair_of_each_task() -> None:
    penalty, each = three_tasks(factors="sum")
    for n, pairs in penalty.quadratic.pairs.items():
        assert_close(pairs, [(A[n], G[n]) for A, G, _ in each])


@pytest.mark.parametrize(("every", "pulls"), [(1, [1, 1, 1, 1, 1]), (2, [0, 2, 0, 2, 0]), (9, [0, 0, 0, 0, 5])])
def test_proximal_step_is_as_long_as_the_steps_since_the_last(every: int, pulls: list[int]) -> None:
    """Of five steps of SGD; a task with fewer than `every` has one, at its end."""
    lr, found = 0.05, []
    for by_hand in (True, False):
        penalty, learner = (
            make_penalty("kfac_ewc", strength=3.0, step="proximal", every=every),
            make_learner(tiny.split()),
        )
        tiny.learn_by_hand(penalty, learner, 0)
        batches, optimizer = random_batches(5, 2, seed=1), torch.optim.SGD(learner.parameters(), lr=lr)
        if by_hand:
            params = {n: p.detach() for n, p in learner.backbone.named_parameters()}
            for (x, y), num in zip(batches, pulls, strict=True):
                optimizer.zero_grad()
                learner.loss(x, y).backward()
                optimizer.step()
                if num:
                    penalty.quadratic.proximal_step_(params, num * lr * 3.0, set(params))
        else:
            tiny.drive(penalty, learner, batches, optimizer, of=5)
        found.append(tiny.weights_of(learner))
    assert_close(found[1], found[0], rtol=0, atol=0)


def test_excluded_bias_is_left_out_of_its_layer() -> None:
    penalty, learner = make_penalty("kfac_ewc", exclude=["head.bias"]), make_learner(tiny.split())
    tiny.after_task(penalty, learner, random_batches(2, 2))
    assert {n: len(A) for (_, n), A in penalty.inputs.items()} == {"body.1.weight": 65, "head.weight": 16}
    assert "head.bias" not in penalty.importance_shown


def test_without_a_layer_it_is_ewc() -> None:
    layers = ["body.0", "body.3", "head"]
    found = []
    for method in ("kfac_ewc", "ewc"):
        penalty, learner = make_penalty(method, exclude=layers), make_learner(tiny.split(), "cnn")
        tiny.after_task(penalty, learner, random_batches(2, 2))
        found.append(penalty.importance_shown)
    assert found[0].keys() == {"body.1.weight", "body.1.bias", "body.4.weight", "body.4.bias"}
    assert_close(found[0], found[1])


def test_layer_whose_weight_is_used_elsewhere_too_is_refused() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)) + self.head.weight.sum(1)

    with pytest.raises(ValueError, match=r"backbone must use head\.weight in its layer alone"):
        kronecker_fisher(Tied(), random_batches(1, 2), ["head.weight", "head.bias"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors": "two"}, "method.factors must be one of one, sum, got 'two'"),
        ({"every": 2}, "method.every must be 1 with method.step=gradient, got 2"),
        ({"every": 0}, "method.every must be an integer >= 1, got 0"),
        ({"factors": "sum", "step": "proximal"}, "method.step must be gradient with method.factors=sum"),
    ],
)
def test_bad_setting_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_penalty("kfac_ewc", **settings)
