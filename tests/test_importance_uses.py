"""Importance where a weight is used more than once, made from others, or in a batch that mixes its samples.

A use that says nothing for the first samples, or at the first weights, counts from the first batch in which it does.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.nn.utils import weight_norm as old_weight_norm
from torch.testing import assert_close

import reference
from lifelong.importance import batch_power_sums, choose_path, fisher, mas, sliced_cramer

ROUNDING = {"rtol": 1e-9, "atol": 1e-13}  # float64, sums of tens of terms of order one
ALL = [0, 1, 2, 3]


class Reused(nn.Module):
    """z = head(tanh(h) + on · again), h = layer(x); `on` is zero for x whose first number is negative.

    For those samples, and while `gate` is zero, the second use of the layer's weight says nothing.
    """

    def __init__(self, again: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(6, 6), nn.Linear(6, 4)
        self.register_buffer("gate", torch.ones(()))
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x)
        return self.head(h.tanh() + self.gate * x[:, :1].relu() * self.again(self.layer, h, x))


def some_samples_only(layer: nn.Module, h: Tensor, x: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[x[:, 0] > 0] = layer(h[x[:, 0] > 0])
    return out


class ReusedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Conv1d(1, 1, 3, padding=1), nn.Linear(6, 4)
        self.register_buffer("gate", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x.unsqueeze(1))
        again = F.conv1d(h.tanh(), self.layer.weight.flip(2), padding=1)
        return self.head((h.tanh() + self.gate * x[:, None, :1].relu() * again).squeeze(1))


class BehindANorm(nn.Module):
    """A residual branch behind a batch norm's scale, which many networks start at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.head = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.layer(x).tanh()
        return self.head(h + self.norm(F.linear(h, self.layer.weight.t())))


REUSED: dict[str, Callable[[], nn.Module]] = {
    "tied decoder": lambda: Reused(lambda layer, h, x: F.linear(h.relu(), layer.weight.t())),
    "weight by function": lambda: Reused(lambda layer, h, x: F.linear(x, layer.weight)),
    "called twice": lambda: Reused(lambda layer, h, x: layer(h.tanh())),
    "called for some samples": lambda: Reused(some_samples_only),
    "called for some batches": lambda: Reused(lambda layer, h, x: layer(h.tanh()) if bool((x[:, 0] > 0).any()) else h),
    "penalty term": lambda: Reused(lambda layer, h, x: layer.weight.square().sum()),
    "bias alone": lambda: Reused(lambda layer, h, x: x * layer.bias),
    "bias made of it": lambda: Reused(lambda layer, h, x: F.linear(x, layer.weight, layer.weight.square().sum(1))),
    "weight through a layer": lambda: Reused(lambda layer, h, x: F.linear(x, layer(layer.weight))),
    "scaled sum": lambda: Reused(lambda layer, h, x: torch.add(x, layer.bias, alpha=2).mul(layer.weight[1])),
    "part of it": lambda: Reused(lambda layer, h, x: x * layer.weight[0]),
    "convolution": ReusedConvolution,
}


def sorted_data() -> tuple[Tensor, Tensor]:
    """Five samples that switch the second use off, then five that do not."""
    x = torch.randn(10, 6, dtype=torch.float64)
    x[:, 0] = x[:, 0].abs() * torch.tensor([-1.0] * 5 + [1.0] * 5)
    return x, torch.arange(10) % 4


@pytest.mark.parametrize("size", [2, 5, 10])
@pytest.mark.parametrize("name", REUSED)
def test_second_use_of_a_weight_counts_where_the_first_samples_hide_it(name: str, size: int) -> None:
    model = REUSED[name]().double()
    x, y = sorted_data()
    batches = list(zip(x.split(size), y.split(size), strict=True))
    expected = reference.fisher_exact(model, x, ALL)
    assert_close(fisher(model, batches), expected, **ROUNDING)
    assert_close(fisher(model, batches, path=choose_path(model, x[:2])), expected, **ROUNDING)
    assert_close(mas(model, batches), reference.mas(model, x, ALL), **ROUNDING)


@pytest.mark.parametrize("name", REUSED)
def test_path_chosen_while_a_gate_is_closed_is_right_when_it_opens(name: str) -> None:
    """As EWC++ and RWalk choose: once, at the first step."""
    model = REUSED[name]().double()
    x, y = sorted_data()
    x = x.abs()
    model.gate.zero_()
    path = choose_path(model, x)
    model.gate.fill_(1.0)
    assert_close(fisher(model, [(x, y)], path=path), reference.fisher_exact(model, x, ALL), **ROUNDING)


def test_path_chosen_while_a_norm_starts_at_zero_is_right_when_it_has_moved() -> None:
    model = BehindANorm().double()
    x, y = sorted_data()
    nn.init.zeros_(model.norm.weight)
    path = choose_path(model, x)
    nn.init.ones_(model.norm.weight)
    assert_close(fisher(model, [(x, y)], path=path), reference.fisher_exact(model, x, ALL), **ROUNDING)


def test_nothing_is_added_of_a_batch_before_its_uses_are_known() -> None:
    """The sums of a batch that leaves the closed form are those of that batch alone."""
    model = REUSED["tied decoder"]().double()
    x, y = sorted_data()

    def norm(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return 2 * z.unsqueeze(0), z.new_ones(1, len(z))

    sums, count = batch_power_sums(model, x, y, norm, power=1, path=choose_path(model, x[:2]))
    assert_close({name: s / count for name, s in sums.items()}, reference.mas(model, x, ALL), **ROUNDING)


# Weights that are made from others ----------------------------------------------------------------------------------


def small(make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with torch.no_grad():  # so that the weight that is made can be copied
        return nn.Sequential(
            make(nn.Conv2d(2, 3, 3, padding=1)),
            nn.ReLU(),
            nn.Flatten(),
            make(nn.Linear(36, 5)),
            nn.Tanh(),
            nn.Linear(5, 4),
        ).double()


def pruned(module: nn.Module) -> nn.Module:
    return prune.l1_unstructured(prune.random_unstructured(module, "weight", 0.5), "bias", 1)


MADE: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": old_weight_norm,
    "weight_norm, parametrized": parametrizations.weight_norm,
    "spectral_norm, parametrized": parametrizations.spectral_norm,
    "pruned": pruned,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.parametrize("name", MADE)
def test_importance_of_what_a_weight_is_made_from_is_the_mean_over_single_samples(name: str) -> None:
    model, x = small(MADE[name]).eval(), torch.randn(5, 2, 3, 4, dtype=torch.float64)
    y = torch.arange(5) % 4
    slow = (
        reference.fisher_exact(model, x, ALL),
        reference.mas(model, x, ALL),
        reference.sliced_cramer_exact(model, x, ALL),
    )
    batches = [(x[:3], y[:3]), (x[3:], y[3:])]
    for path in ("auto", "func", "loop"):
        assert_close(fisher(model, batches, path=path), slow[0], **ROUNDING)
        assert_close(mas(model, batches, path=path), slow[1], **ROUNDING)
    assert_close(sliced_cramer(model, batches), slow[2], **ROUNDING)


# Samples that are not on their own ------------------------------------------------------------------------------------


class Centred(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


class Gated(nn.Module):
    """1 + gate · norm(x) with the gate at zero: the output does not show that samples are mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.gate = nn.BatchNorm2d(2, track_running_stats=False), nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate * self.norm(x)


MIXING: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm2d(2, track_running_stats=False),
    "behind a gate": Gated,
    "mean over the batch": Centred,
}


@pytest.mark.parametrize("name", MIXING)
def test_importance_of_a_model_that_mixes_samples_is_that_of_each_sample_alone(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = nn.Sequential(nn.Conv2d(2, 2, 1), MIXING[name](), nn.Tanh(), nn.Flatten(), nn.Linear(24, 4)).double().eval()
    x, y = torch.randn(6, 2, 3, 4, dtype=torch.float64), torch.arange(6) % 4
    batches = [(x[:4], y[:4]), (x[4:], y[4:])]
    assert_close(fisher(model, batches), reference.fisher_exact(model, x, ALL), **ROUNDING)
    assert_close(fisher(model, batches, path="loop"), reference.fisher_exact(model, x, ALL), **ROUNDING)
    assert_close(fisher(model, batches, labels="empirical"), reference.fisher_of_labels(model, x, y, ALL), **ROUNDING)
    assert_close(mas(model, batches), reference.mas(model, x, ALL), **ROUNDING)
    assert_close(sliced_cramer(model, batches), reference.sliced_cramer_exact(model, x, ALL), **ROUNDING)
    (record,) = caplog.records
    assert "one sample at a time" in record.message
    assert name != "batch norm" or "BatchNorm2d (1) without running statistics mixes" in record.message


def test_norm_that_cannot_take_one_sample_is_named() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 4))
    for estimate in (fisher, sliced_cramer):
        with pytest.raises(
            ValueError, match=r"one sample at a time, which BatchNorm1d \(1\) without .* cannot: Expected more"
        ):
            estimate(model, [(torch.randn(4, 6), torch.arange(4))])
