"""HAT: gates, their gradient, and what earlier tasks claim, against the formulas written out."""

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.testing import assert_close

import reference
import tiny
from isolated import OPTIMIZERS, learned, make_stream
from lifelong.data.loader import Batch
from lifelong.methods.hat import HAT
from lifelong.models.cnn import CNN
from lifelong.models.learner import Learner
from lifelong.models.resnet import ResNet18
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}
SIZES = {0: 3, 1: 4, 2: 5}
"""Units of the layers of `convolutional`."""


def convolutional() -> nn.Module:
    """8 × 8 → 3 channels → 4 channels of 2 × 2 pixels → 5 units → the head."""
    return CNN((1, 8, 8), 6, channels=(3, 4), hidden=5)


def in_second_task(strength: float = 0.75, s_max: float = 50.0) -> tuple[HAT, Any]:
    """The first task has claimed something; float64."""
    stream, method, g = make_stream(), HAT(strength, s_max), torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    learner = Learner(convolutional(), OPTIMIZERS["adam"], 6, stream.groups()).double()
    method.masks = {(0, i): torch.rand(size, generator=g, dtype=torch.float64) for i, size in SIZES.items()}
    method.masks[0, 1][:2] = 1.0
    method.embeddings = {i: torch.randn(size, generator=g, dtype=torch.float64) for i, size in SIZES.items()}
    method.leaves(learner)
    method.task = stream.task(1)
    learner.show(stream.visible(1, 1))
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1)
    method.on_train_start(tiny.stand_in_trainer(optimizer, 1), learner)
    return method, learner


def batch(task: int = 1) -> Batch:
    g = torch.Generator().manual_seed(2)
    return Batch(
        torch.rand(6, 1, 8, 8, generator=g, dtype=torch.float64), torch.randint(2, (6,), generator=g) + 2 * task
    )


# The gates ----------------------------------------------------------------------------------------------------------


class Annealing(Callback):
    def __init__(self, method: HAT) -> None:
        self.method = method
        self.s: list[float] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.s.append(self.method._s)


def test_s_rises_from_its_inverse_to_s_max_in_each_epoch(tmp_path: Path) -> None:
    method = HAT(s_max=400.0)
    annealing = Annealing(method)
    learned(method, tmp_path, callbacks=[annealing], epochs=2)
    one_epoch = [1 / 400 + (400 - 1 / 400) * b / 3 for b in range(4)]  # 54 samples in batches of 16
    assert annealing.s == pytest.approx(one_epoch * 6, rel=1e-12)


def test_s_reaches_s_max_where_steps_end_within_an_epoch(tmp_path: Path) -> None:
    annealing = Annealing(HAT(s_max=400.0))
    learned(annealing.method, tmp_path, callbacks=[annealing], epochs=9, max_steps=6)
    whole, half = [1 / 400 + (400 - 1 / 400) * b / 3 for b in range(4)], [1 / 400, 400.0]
    assert annealing.s == pytest.approx([*whole, *half] * 3, rel=1e-12)


def test_batches_whose_s_differs_share_a_compiled_graph() -> None:
    graphs: list[Any] = []

    def count(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    method, learner = in_second_task()
    network, found = torch.compile(learner.backbone, backend=count, dynamic=False), []
    for s in (1.0, 2.0, 3.0):
        method._s = s
        assert_close(network(batch().x), learner.backbone(batch().x), **EXACT)
        found.append(len(graphs))
    assert found == [found[0]] * 3


def test_s_is_s_max_where_an_epoch_is_one_batch(tmp_path: Path) -> None:
    method = HAT()
    annealing = Annealing(method)
    learned(method, tmp_path, callbacks=[annealing], limit_train_batches=1)
    assert annealing.s == [400.0] * 3


@pytest.mark.parametrize("s", [0.02, 1.0, 7.0])
def test_gradient_of_an_embedding_is_the_compensated_one(s: float) -> None:
    """Of task loss and regulariser, layer by layer, against autograd of the formula; the gate itself is σ(s e)."""
    method, learner = in_second_task()
    method._s = s
    x, y, _ = data = batch()
    z = learner.logits(x)
    (learner.task_loss(z, y) + method.extra_loss(data, z)).backward()
    gates = {i: torch.sigmoid(s * e.detach()) for i, e in method.embeddings.items()}

    def loss(layer: int, gate: Tensor) -> Tensor:
        all_gates = gates | {layer: gate}
        claimed = {i: method.masks[0, i] for i in SIZES}
        used = sum((a * (1 - claimed[i])).sum() for i, a in all_gates.items())
        return learner.task_loss(gated(learner.backbone, x, all_gates), y) + 0.75 * used / sum(
            (1 - c).sum() for c in claimed.values()
        )

    for layer, e in method.embeddings.items():
        expected = reference.compensated(e, lambda gate, i=layer: loss(i, gate), s=s, s_max=50.0)
        assert e.grad is not None
        assert_close(e.grad, expected, rtol=1e-9, atol=1e-14)
    assert_close(z.detach(), gated(learner.backbone, x, gates).detach(), rtol=1e-12, atol=1e-14)


def gated(backbone: Any, x: Tensor, gates: dict[int, Tensor]) -> Tensor:
    """Logits, with the gates written between the layers."""
    layer = 0
    for module in list(backbone.body):
        x = type(module).forward(module, x)
        if isinstance(module, nn.ReLU):
            x = x * (gates[layer].view(-1, 1, 1) if x.ndim == 4 else gates[layer])
            layer += 1
    return backbone.head(x)


def test_regulariser_is_the_share_of_free_units_that_are_used() -> None:
    method, _ = in_second_task(strength=3.0)
    method._s = 2.0
    gates = [torch.sigmoid(2.0 * e).tolist() for e in method.embeddings.values()]
    expected = 3.0 * 0.5 * reference.attention_used(gates, [method.masks[0, i].tolist() for i in SIZES])
    found = method.extra_loss(Batch(*batch()[:2], 0.5), torch.zeros(1, dtype=torch.float64))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-12)


def test_embeddings_are_drawn_anew_trained_and_bounded(tmp_path: Path) -> None:
    method, seen = HAT(), []

    class Look(Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            seen.append(torch.cat([e.detach().clone() for e in method.embeddings.values()]))

    _, _, _ = learned(method, tmp_path, "cnn", "momentum", callbacks=[Look()], epochs=2)
    assert len({float(e[0]) for e in seen[::8]}) == 3
    assert all(not torch.equal(a, b) for a, b in pairwise(seen))
    assert max(float(e.abs().max()) for e in seen) <= 6.0


def test_optimizer_that_is_kept_knows_nothing_of_embeddings_drawn_anew(tmp_path: Path) -> None:
    method, known = HAT(), []

    class Look(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            asked = (pl_module.backbone.head.weight, *method.embeddings.values())
            known.append([p in trainer.optimizers[0].state for p in asked])

    learned(method, tmp_path, callbacks=[Look()], keep_optimizer=True)
    assert known == [[False, False], [True, False], [True, False]]


def test_overflow_of_another_rank_is_averaged_ahead_of_the_loss_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that all ranks skip the step; a rank that made it would leave e = −6 there."""
    seen: list[Tensor] = []

    class Look(Callback):
        def on_train_start(self, *_: Any) -> None:
            seen.extend(e.detach().clone() for e in method.embeddings.values())

    def with_another_rank(gradients: Iterable[Tensor]) -> None:
        for g in gradients:
            g[0] = torch.inf

    monkeypatch.setattr("lifelong.methods.hat.mean_over_ranks_", with_another_rank)
    method, stream = HAT(), make_stream()
    scaled = MixedPrecision("16-mixed", "cpu", GradScaler("cpu", init_scale=2.0**10))
    tiny.fit(make_learner(stream), method, stream.task(0).train, method, Look(), plugins=[scaled])
    assert_close(list(method.embeddings.values()), seen, rtol=0.0, atol=0.0)


# What is claimed ----------------------------------------------------------------------------------------------------


def test_gradients_are_scaled_by_what_is_unclaimed() -> None:
    """1 − min(a_out, a_in), weight by weight; a flattened channel is one unit."""
    method, learner = in_second_task()
    grads = {n: torch.ones_like(p) for n, p in learner.backbone.named_parameters()}
    method.edit_gradients(grads)
    claimed = [method.masks[0, i].tolist() for i in SIZES]
    for layer, name in enumerate(("body.0", "body.3", "body.7")):
        before = claimed[layer - 1] if layer else None
        expected = reference.unclaimed(grads[f"{name}.weight"].shape, claimed[layer], before)
        assert_close(grads[f"{name}.weight"], expected, rtol=1e-12, atol=1e-15)
        assert_close(grads[f"{name}.bias"], 1 - method.masks[0, layer], rtol=1e-12, atol=1e-15)
    rows = torch.tensor([0, 0, 1, 1, 0, 0], dtype=torch.float64)
    assert_close(grads["head.weight"], rows.view(-1, 1).expand(6, 5), **EXACT)
    assert_close(grads["head.bias"], rows, **EXACT)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weight_whose_units_are_both_fully_claimed_does_not_move(optimizer: str, tmp_path: Path) -> None:
    method, weights = HAT(strength=0.0), []

    class Look(Callback):
        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            weights.append({n: p.detach().clone() for n, p in pl_module.backbone.named_parameters()})

    learned(method, tmp_path, "cnn", optimizer, callbacks=[Look()], epochs=2)
    first, second = (method.masks[0, i] == 1 for i in range(2))
    assert first.any()
    assert second.any()
    both = second.view(-1, 1) & first.view(1, -1)
    for later in weights[1:]:
        assert_close(later["body.0.weight"][first], weights[0]["body.0.weight"][first], **EXACT)
        assert_close(later["body.3.weight"][both], weights[0]["body.3.weight"][both], **EXACT)
        for name, claimed in {"body.1.weight": first, "body.3.bias": second, "body.4.bias": second}.items():
            assert_close(later[name][claimed], weights[0][name][claimed], **EXACT)
    assert not torch.equal(weights[1]["body.3.weight"], weights[0]["body.3.weight"])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", tiny.NETWORKS)
def test_gates_that_are_hard_forget_nothing(network: str, optimizer: str, tmp_path: Path) -> None:
    """Bit for bit, where s_max is so large that each gate is 0 or 1."""
    method = HAT(strength=0.0, s_max=1e6)
    _, _, said = learned(method, tmp_path, network, optimizer, epochs=2)
    assert all(bool(((mask == 0) | (mask == 1)).all()) for mask in method.masks.values())
    assert sum(bool(mask.any()) for mask in method.masks.values()) > 1
    for task in range(3):
        assert_close(said[-1][task], said[task][task], **EXACT)


def test_frozen_weights_need_no_gate(tmp_path: Path) -> None:
    stream, learner = make_stream(), tiny.make_learner(make_stream(), "mlp", OPTIMIZERS["adam"])
    frozen = next(learner.backbone.parameters()).requires_grad_(False)
    before = frozen.clone()
    tiny.run(stream, learner, HAT(), tmp_path)
    assert_close(frozen, before, **EXACT)


def test_regulariser_of_a_network_that_is_fully_claimed_is_zero() -> None:
    """Not 0/0."""
    method, _ = in_second_task()
    method.masks = {key: torch.ones_like(mask) for key, mask in method.masks.items()}
    method.hold()
    assert float(method.extra_loss(batch(), torch.zeros(1, dtype=torch.float64)).detach()) == 0


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "backbone",
    [
        ResNet18((1, 8, 8), 6, width=4),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 8), nn.ReLU()),
    ],
)
def test_network_that_is_no_chain_is_refused(backbone: nn.Module) -> None:
    if not hasattr(backbone, "head"):
        backbone.head = nn.Linear(8, 6)
    with pytest.raises(ValueError, match=r"^backbone must be a chain of layers, each a weight and an nn\.ReLU"):
        HAT().check(make_stream(), backbone)


@pytest.mark.parametrize("network", tiny.NETWORKS)
def test_chain_is_accepted(network: str) -> None:
    HAT().check(make_stream(), make_learner(make_stream(), network).backbone)


@pytest.mark.parametrize(("settings", "key"), [({"strength": -1}, "strength"), ({"s_max": 0.5}, "s_max")])
def test_impossible_setting_is_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^method\.{key} must be a finite number >="):
        HAT(**settings)
