"""The step of a stack: each member's gradients, by the batched products of all."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

import tiny
from lifelong.data.examples import Examples
from lifelong.data.normalise import first_task
from lifelong.data.split import Split
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.models.cnn import CNN
from lifelong.models.evaluation import accuracy_row
from lifelong.models.mlp import MLP
from lifelong.stacked.data import accuracy_rows
from lifelong.stacked.network import Network
from lifelong.stacked.plan import NETWORKS
from lifelong.training.loop import Run

S, B, K = 3, 5, 4


MAKE: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: MLP((2, 5, 4), K, widths=(7, 5)),
    "mlp without biases": lambda: MLP((2, 5, 4), K, widths=(7, 5), bias=False),
    "cnn": lambda: CNN((2, 5, 4), K, channels=(3, 5), hidden=7),
}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("make", MAKE)
def test_gradients_and_their_mean_squares_are_those_of_single_samples(shared: bool, make: str) -> None:
    """Of each network alone, by autograd, one sample after the other, over the columns it may choose from."""
    torch.manual_seed(0)
    backbones = [MAKE[make]().double() for _ in range(S)]
    x = torch.randn(*([] if shared else [S]), B, 2 * 5 * 4, dtype=torch.float64)
    y = torch.randint(2, (*([] if shared else [S]), B))
    hidden = torch.tensor([[False] * K, [False, False, True, True], [False, False, False, True]]).unsqueeze(1)
    expected = []
    for s, backbone in enumerate(backbones):
        names, params = zip(*backbone.named_parameters(), strict=True)
        for inputs, label in zip(x if shared else x[s], y if shared else y[s], strict=True):
            z = backbone(inputs.view(1, 2, 5, 4)).masked_fill(hidden[s], -torch.inf)
            loss = cross_entropy(z, label.unsqueeze(0))
            expected.append([loss.detach(), *torch.autograd.grad(loss, params)])
    each = [torch.stack(list(values)).unflatten(0, (S, B)) for values in zip(*expected, strict=True)]
    network = NETWORKS[type(backbones[0])](backbones)
    losses, grads = network.gradients(x, y, hidden)
    squares = network.mean_squares(slice(1, S))
    assert (squares is None) == (make == "cnn")
    assert_close(losses, each[0].mean(1))
    assert list(grads) == list(names)
    assert_close(grads, {name: g.mean(1) for name, g in zip(names, each[1:], strict=True)})
    assert all(g.is_contiguous() for g in grads.values())  # else torch's fused optimisers misread them
    if squares is not None:
        assert_close(squares, {name: g[1:].square().mean(1) for name, g in zip(names, each[1:], strict=True)})


def shades(examples: Examples) -> Examples:
    """Class c is c + 1 times as bright as class 0."""
    share = (examples.labels + 1).view(-1, 1, 1, 1) / 6
    return Examples((examples.inputs * share).to(torch.uint8), examples.labels)


def test_each_member_is_tested_on_what_its_own_stream_makes_of_pixels() -> None:
    """Normalised by its own first task, which is another one for each."""
    runs, whole = [], tiny.source()
    shaded = replace(whole, train=shades(whole.train), test=shades(whole.test))
    for order in (None, "reversed"):
        stream = Split(shaded, 2, scenario="class", order=order)
        learner = tiny.make_learner(stream)
        learner.as_input = first_task(stream)
        runs.append(Run(stream, learner, Method(), Memory(), tiny.make_trainer, batch_size=16))
    expected = [accuracy_row(run.learner, run.stream, 2, "test") for run in runs]
    found = accuracy_rows(runs, Network([r.learner.backbone for r in runs]), 2, "test", torch.device("cpu"))
    assert_close(found, torch.stack(expected), rtol=0, atol=0)


def test_released_members_share_no_memory() -> None:
    backbones = [MLP((6,), 4, widths=(7,)) for _ in range(2)]
    before = [{n: p.detach().clone() for n, p in backbone.named_parameters()} for backbone in backbones]
    network = Network(backbones)
    assert_close([dict(backbone.named_parameters()) for backbone in backbones], before, rtol=0, atol=0)
    network.weights["head.weight"].zero_()
    assert not any(bool(backbone.head.weight.any()) for backbone in backbones)
    network.release()
    network.weights["head.weight"].fill_(1)
    assert not any(bool(backbone.head.weight.any()) for backbone in backbones)
    assert backbones[0].head.weight.untyped_storage().nbytes() == 4 * 4 * 7
