"""The arithmetic of the quadratic against autograd of the written formula and against sums over tasks."""

import pytest
import torch

import reference
from lifelong.methods import quadratic


def lists(seed: int, shapes: tuple[tuple[int, ...], ...] = ((3, 4), (5,))) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=g, dtype=torch.float64) for s in shapes]


def positive(seed: int) -> list[torch.Tensor]:
    return [t.square() for t in lists(seed)]


@pytest.mark.parametrize("c", [0.5, 1.0])
def test_gradient_equals_autograd_of_the_formula(c: float) -> None:
    params, anchor, importance = lists(0), lists(1), positive(2)
    grads = [torch.ones_like(p) for p in params]
    quadratic.add_gradient_(grads, params, anchor, importance, 2 * c * 3.0)
    expected = reference.penalty_gradient(params, anchor, importance, c=c, strength=3.0)
    for got, want in zip(grads, expected, strict=True):
        torch.testing.assert_close(got, want + 1)


def test_strength_may_be_a_tensor_over_a_leading_dimension() -> None:
    """Stacked training: each slice gets the gradient it would get alone with its own strength."""
    strengths = torch.tensor([0.0, 1.0, 100.0], dtype=torch.float64)
    stacked = [torch.stack([lists(s)[i] for s in range(3)]) for i in range(2)]
    anchor = [torch.stack([lists(9 + s)[i] for s in range(3)]) for i in range(2)]
    importance = [t.square() for t in stacked]
    grads, moved = [torch.zeros_like(p) for p in stacked], [p.clone() for p in stacked]
    quadratic.add_gradient_(grads, stacked, anchor, importance, strengths)
    quadratic.proximal_step_(moved, anchor, importance, strengths)
    for s, strength in enumerate(strengths.tolist()):
        alone = [torch.zeros_like(p[s]) for p in stacked]
        slices = ([p[s] for p in stacked], [a[s] for a in anchor], [w[s] for w in importance])
        quadratic.add_gradient_(alone, *slices, strength)
        own = [p[s].clone() for p in stacked]
        quadratic.proximal_step_(own, *slices[1:], strength)
        for i in range(2):
            torch.testing.assert_close(grads[i][s], alone[i])
            torch.testing.assert_close(moved[i][s], own[i])


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e12])
def test_proximal_step_minimises_the_proximal_objective(scale: float) -> None:
    """θ' = argmin ½(θ' − θ)² + ½ scale Ω (θ' − θ*)², so θ' − θ + scale Ω (θ' − θ*) = 0."""
    params, anchor, importance = lists(0), lists(1), positive(2)
    before = [p.clone() for p in params]
    quadratic.proximal_step_(params, anchor, importance, scale)
    for p, b, a, w in zip(params, before, anchor, importance, strict=True):
        expected = (b + scale * w * a) / (1 + scale * w)
        torch.testing.assert_close(p, expected)
        assert bool(((p - a).abs() <= (b - a).abs() + 1e-15).all())


def test_proximal_step_with_overflowing_strength_lands_on_the_anchor() -> None:
    params, anchor = [torch.ones(3)], [torch.tensor([0.0, 2.0, 1.0])]
    quadratic.proximal_step_(params, anchor, [torch.full((3,), 3e38)], 1e10)
    torch.testing.assert_close(params[0], anchor[0])


def test_merged_anchor_is_unchanged_where_no_task_cares() -> None:
    mu, total, _ = quadratic.merge_quadratics(
        torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([5.0, 5.0]), torch.tensor([0.0, 2.0])
    )
    assert mu.tolist() == [1.0, 5.0]
    assert total.tolist() == [0.0, 2.0]
