"""Importance leaves a model, and the global random numbers, as it found them."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
from importance_models import ROUNDING, cnn, data
from lifelong.importance import fisher, mas, sliced_cramer

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # uneven padding is what is wanted

SHAPE = (2, 6, 5)
VISIBLE = torch.ones(4, dtype=torch.bool)


class Restless(nn.Module):
    """Draws from the global generator and counts its calls, in eval mode too."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("replaced", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.replaced = self.calls + 1
        return nn.functional.dropout(x, 0.1, training=True)


def restless() -> nn.Module:
    model = nn.Sequential(Restless(), cnn())
    model.train()
    model[1][1].eval()
    model(torch.randn(3, *SHAPE)).sum().backward()
    model[1][0].weight.grad = None
    return model


def state_of(model: nn.Module) -> list[object]:
    modules = list(model.modules())
    return [
        torch.get_rng_state(),
        [module.training for module in modules],
        [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        {name: (id(b), b.clone()) for name, b in model.named_buffers()},
        {name: p.detach().clone() for name, p in model.named_parameters()},
        {name: p.grad if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
    ]


def shuffled(num_samples: int = 7) -> Iterator[tuple[Tensor, Tensor]]:
    """As a data loader: it draws from the global generator."""
    x, y = data(SHAPE, num_samples)
    for part in torch.randperm(num_samples).split(3):
        yield x[part], y[part]


def test_importance_leaves_no_trace(path: str) -> None:
    """Weights, gradients, batch-norm statistics and other buffers, modes of each module, hooks, global RNG."""
    model = restless()
    before = state_of(model)
    for labels in ("exact", "sampled", "empirical", "weighted", "pred", "batched"):
        fisher(model, shuffled(), labels=labels, generator=torch.Generator())
    mas(model, shuffled())
    sliced_cramer(model, shuffled(), VISIBLE, num_slices=2, generator=torch.Generator())
    assert_close(state_of(model), before, rtol=0, atol=0)


class Scaling(nn.Embedding):
    """A look-up scales the rows that it reads to a norm of 1/2 at most, in place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.long())


def test_embedding_whose_forward_pass_scales_its_weights_keeps_them(path: str) -> None:
    if path == "func":
        pytest.skip("vmap has no rule for it")
    model = nn.Sequential(Scaling(6, 5, max_norm=0.5), nn.Flatten(), nn.Linear(10, 4)).double()
    x, y = torch.arange(14.0).view(7, 2) % 6, torch.arange(7) % 4
    expected, before = reference.fisher_exact(model, x, [0, 1, 2, 3]), state_of(model)
    assert_close(fisher(model, [(x[:3], y[:3]), (x[3:], y[3:])]), expected, **ROUNDING)
    assert_close(state_of(model), before, rtol=0, atol=0)


def test_importance_that_fails_leaves_no_trace(path: str) -> None:
    model, (x, y) = restless(), data(SHAPE)
    before = state_of(model)
    hidden = torch.tensor([True, True, True, False])
    with pytest.raises(ValueError, match="labels must be visible"):
        fisher(model, [(x, y)], labels="empirical", visible=hidden)
    with pytest.raises(RuntimeError, match="size"):
        fisher(model, [(x, y), (x[..., :2], y)])
    assert_close(state_of(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_importance_is_the_same_in_any_grad_mode_and_precision_context(mode: object, path: str) -> None:
    model, (x, y) = cnn(), data(SHAPE)
    expected = fisher(model, [(x, y)]), sliced_cramer(model, [(x, y)], VISIBLE)
    with mode():  # type: ignore[operator]
        inside = [(x * 1, y * 1)]
        assert_close((fisher(model, inside), sliced_cramer(model, inside, VISIBLE)), expected, rtol=0, atol=0)
