"""XdG: which units are off, and that off is off."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.testing import assert_close

import tiny
from isolated import learned, make_stream
from lifelong.methods.method import Method
from lifelong.methods.xdg import XdG
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


def gates(seed: int, share: float = 0.8) -> dict[tuple[int, int], Tensor]:
    """By task and layer, of 50 units; the tasks and layers in the opposite order at an odd seed."""
    method, stream = XdG(share), make_stream()
    backwards = -1 if seed % 2 else 1
    for task in (0, 1, 2)[::backwards]:
        method.seed = 10 * (seed // 2) + task
        method.before_task(stream.task(task))
    found = {(t, i): method.gate(t, i, 50) for t in (2, 0, 1)[::backwards] for i in (1, 0)[::backwards]}
    return {key: gate for key, gate in found.items() if gate is not None}


def test_gated_set_is_a_function_of_seed_and_task() -> None:
    """Whatever was drawn before it; and its size is the share."""
    once, again, other = gates(0), gates(1), gates(2)
    assert len(once) == 6
    for key, gate in once.items():
        assert int(gate.sum()) == 10
        assert_close(again[key], gate, **EXACT)
        assert not torch.equal(other[key], gate)
    sets = {tuple(gate.tolist()) for gate in once.values()}
    assert len(sets) == 6  # tasks and layers differ


def test_units_that_are_off_say_nothing_and_the_others_what_they_did() -> None:
    stream, method = make_stream(), XdG(0.5)
    learner = method.learner = make_learner(stream, "cnn").eval()
    x, seen = torch.rand(4, 1, 8, 8), []
    method.before_task(stream.task(1))
    first = learner.backbone.body[2]
    for task in (None, stream.task(1), None):
        method.enter(task)
        look = first.register_forward_hook(lambda module, inputs, units: seen.append(units))
        learner(x)
        look.remove()
    gate = method.gate(1, 0, 4)
    assert gate is not None
    assert_close(seen[1], seen[0] * gate.view(1, 4, 1, 1), **EXACT)
    assert_close(seen[2], seen[0], **EXACT)
    assert int(gate.sum()) == 2


def test_weights_of_units_that_are_off_do_not_move(tmp_path: Path) -> None:
    """Into them and out of them: their gradient is zero."""
    stream, method = tiny.split("task", window=[0, 1]), XdG(0.5)
    learner = make_learner(stream, "mlp", partial(SGD, lr=0.1))
    start = tiny.weights_of(learner)
    tiny.run(stream, learner, method, tmp_path)
    gate = method.gate(0, 0, 16)
    assert gate is not None
    moved = {n: w != start[n] for n, w in tiny.weights_of(learner).items()}
    into, out_of = moved["backbone.body.1.weight"].any(1), moved["backbone.head.weight"].any(0)
    assert not into[~gate].any()
    assert not out_of[~gate].any()
    assert into[gate].any()
    assert out_of[gate].any()


@pytest.mark.parametrize("network", tiny.NETWORKS)
def test_share_of_nothing_is_bitwise_finetuning(network: str, tmp_path: Path) -> None:
    found = []
    for method in (Method(), XdG(share=0.0)):
        learner, matrix, said = learned(method, tmp_path, network)
        found.append((matrix, said, tiny.weights_of(learner)))
    assert_close(found[1], found[0], **EXACT)


def test_network_without_gates_to_set_is_refused() -> None:
    stream, method = make_stream(), XdG()
    with pytest.raises(ValueError, match=r"^backbone must have nn\.ReLU modules with XdG, whose gates follow them$"):
        method.check(stream, nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 6)))


@pytest.mark.parametrize(("share", "fits"), [(1.0, False), (0.97, False), (0.96, True)])
def test_layer_keeps_a_unit(share: float, fits: bool) -> None:
    """Of 16 units 0.97 leaves round(0.48)."""
    stream = make_stream()
    backbone = make_learner(stream).backbone
    if fits:
        XdG(share).check(stream, backbone)
        return
    message = f"method.share must leave each layer some of its units, got {share}, by which layer 1 has none of 16"
    with pytest.raises(ValueError, match=message):
        XdG(share).check(stream, backbone)


@pytest.mark.parametrize("share", [-0.1, 1.1, True])
def test_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"^method\.share must be a finite number >= 0 and <= 1, got"):
        XdG(share)
