"""Values of importance: against loops over single samples in float64, closed forms, and the traps of published code."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
from importance_models import COVERED, ROUNDING, UNCOVERED, mlp
from lifelong.importance import fisher, mas, mean_power_gradient, sliced_cramer
from lifelong.importance.estimators import unit_slices

Params = dict[str, Tensor]
Batches = list[tuple[Tensor, Tensor]]

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # uneven padding is what is wanted

VISIBLE = [0, 1, 3]
MASK = torch.tensor([True, True, False, True])
ALL = torch.ones(4, dtype=torch.bool)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def data(shape: tuple[int, ...], num_samples: int = 7) -> tuple[Tensor, Tensor]:
    y = torch.tensor(VISIBLE).repeat(num_samples)[:num_samples]
    return torch.randn(num_samples, *shape, dtype=torch.float64), y


def cut(x: Tensor, y: Tensor, size: int = 3) -> Batches:
    return list(zip(x.split(size), y.split(size), strict=True))


def labels_drawn(model: nn.Module, x: Tensor) -> Tensor:
    """The labels that a generator as seeded gives to the batches of `cut`."""
    generator = seeded()
    p = [model.eval()(part).masked_fill(~MASK, -torch.inf).softmax(1) for part in x.split(3)]
    return torch.cat([torch.multinomial(part, 1, generator=generator)[:, 0] for part in p])


OURS: dict[str, Callable[[nn.Module, Batches], Params]] = {
    "exact": lambda model, batches: fisher(model, batches, visible=MASK),
    "empirical": lambda model, batches: fisher(model, batches, labels="empirical", visible=MASK),
    "sampled": lambda model, batches: fisher(model, batches, labels="sampled", visible=MASK, generator=seeded()),
    "weighted": lambda model, batches: fisher(model, batches, labels="weighted", visible=MASK),
    "pred": lambda model, batches: fisher(model, batches, labels="pred", visible=MASK),
    "batched": lambda model, batches: fisher(model, batches, labels="batched", batch_size=2, visible=MASK),
    "mas": lambda model, batches: mas(model, batches, visible=MASK),
    "mas, batched": lambda model, batches: mas(model, batches, visible=MASK, batch_size=2),
    "scp": lambda model, batches: sliced_cramer(model, batches, MASK),
    "scp, 2 slices": lambda m, batches: sliced_cramer(m, batches, MASK, num_slices=2, generator=seeded()),
    "scp, 5 slices": lambda m, batches: sliced_cramer(m, batches, MASK, num_slices=5, generator=seeded()),
}
SLOW: dict[str, Callable[[nn.Module, Tensor, Tensor], Params]] = {
    "exact": lambda model, x, y: reference.fisher_exact(model, x, VISIBLE),
    "empirical": lambda model, x, y: reference.fisher_of_labels(model, x, y, VISIBLE),
    "sampled": lambda model, x, y: reference.fisher_of_labels(model, x, labels_drawn(model, x), VISIBLE),
    "weighted": lambda model, x, y: reference.fisher_of_weighted_labels(model, x, y, VISIBLE),
    "pred": lambda model, x, y: reference.fisher_of_predictions(model, x, VISIBLE),
    "batched": lambda model, x, y: reference.squared_batch_means(model, x, y, VISIBLE, 2),
    "mas": lambda model, x, y: reference.mas(model, x, VISIBLE),
    "mas, batched": lambda model, x, y: reference.mas_of_batch_means(model, x, VISIBLE, 2),
    "scp": lambda model, x, y: reference.sliced_cramer_exact(model, x, VISIBLE),
    "scp, 2 slices": lambda m, x, y: reference.sliced_cramer(m, x, VISIBLE, unit_slices(2, 3, seeded())),
    "scp, 5 slices": lambda m, x, y: reference.sliced_cramer(m, x, VISIBLE, unit_slices(5, 3, seeded())),
}


@pytest.mark.parametrize("estimator", OURS)
@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
def test_importance_is_the_mean_over_single_samples(name: str, estimator: str) -> None:
    make, shape = (COVERED | UNCOVERED)[name]
    model = make().double()
    x, y = data(shape)
    assert_close(OURS[estimator](model, cut(x, y)), SLOW[estimator](model, x, y), **ROUNDING)


@pytest.mark.parametrize("estimator", sorted(set(OURS) - {"sampled", "batched", "mas, batched"}))
def test_importance_does_not_depend_on_batches(estimator: str) -> None:
    """But for `sampled`, whose draws follow the batches, and `batched`, which cut their own in the samples' order."""
    model = COVERED["cnn"][0]().double()
    x, y = data(COVERED["cnn"][1])
    order = torch.randperm(len(x))
    expected = OURS[estimator](model, [(x, y)])
    for batches in (cut(x, y, 1), cut(x, y, 4), cut(x[order], y[order], 2)):
        assert_close(OURS[estimator](model, batches), expected, **ROUNDING)


def test_importance_of_softmax_regression_has_its_closed_form() -> None:
    model = nn.Linear(6, 4, bias=False).double()
    x, y = data((6,))
    z = (x @ model.weight.T).detach()
    p, one_hot, batches = z.softmax(1), torch.eye(4, dtype=torch.float64)[y], cut(x, y)
    predicted = torch.zeros_like(p).scatter_(1, z.argmax(1, keepdim=True), 1.0)
    assert_close(fisher(model, batches)["weight"], (p * (1 - p)).T @ x**2 / len(x))
    assert_close(fisher(model, batches, labels="empirical")["weight"], ((p - one_hot) ** 2).T @ x**2 / len(x))
    weighted = (p * one_hot).sum(1, keepdim=True) * (p - one_hot) ** 2
    assert_close(fisher(model, batches, labels="weighted")["weight"], weighted.T @ x**2 / len(x))
    assert_close(fisher(model, batches, labels="pred")["weight"], ((p - predicted) ** 2).T @ x**2 / len(x))
    mean = (p - one_hot).T @ x / len(x)
    assert_close(fisher(model, batches, labels="batched", batch_size=len(x))["weight"], mean**2)
    assert_close(mas(model, batches)["weight"], (2 * z).abs().T @ x.abs() / len(x))
    assert_close(sliced_cramer(model, batches, ALL)["weight"], (x.mean(0) ** 2 / 4).expand(4, 6))
    assert_close(sliced_cramer(nn.Linear(6, 4).double(), batches, ALL)["bias"], torch.full((4,), 0.25).double())


def test_weighted_fishers_of_all_labels_add_up_to_the_exact_one() -> None:
    make, shape = COVERED["cnn"]
    model, (x, y) = make().double(), data(shape)
    terms = [OURS["weighted"](model, [(x, torch.full((len(x),), k))]) for k in VISIBLE]
    assert_close(
        {name: sum(term[name] for term in terms) for name in terms[0]}, OURS["exact"](model, cut(x, y)), **ROUNDING
    )


def test_squared_batch_means_depend_on_the_batch_size_and_the_order_alone() -> None:
    """Of one sample they are the empirical Fisher; without a size the batches are as they come."""
    model = mlp().double()
    x, y = data((1, 2, 3))
    for size in (1, 2, 5, 7, 100):
        expected = fisher(model, cut(x, y, size), labels="batched")
        for batches in (cut(x, y, 1), cut(x, y, 4), [(x, y)]):
            assert_close(fisher(model, batches, labels="batched", batch_size=size), expected, **ROUNDING)
    single = fisher(model, cut(x, y), labels="batched", batch_size=1)
    assert_close(single, fisher(model, [(x, y)], labels="empirical"), **ROUNDING)


# Traps ------------------------------------------------------------------------------------------------------------


def test_importance_is_not_the_square_of_a_batch_mean() -> None:
    """Two samples whose gradients cancel are both important."""
    model = nn.Linear(1, 2, bias=False)
    nn.init.zeros_(model.weight)
    x, y = torch.ones(2, 1), torch.tensor([0, 1])
    assert_close(fisher(model, [(x, y)], labels="empirical")["weight"], torch.full((2, 1), 0.25))
    assert_close(fisher(model, [(x, y)], labels="batched")["weight"], torch.zeros(2, 1))


def test_mas_takes_the_absolute_value_before_the_mean() -> None:
    """z = x and ∂z²/∂b = 2x: ±2 on two samples."""
    model = nn.Linear(1, 1)
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    batches = [(torch.tensor([[1.0], [-1.0]]), torch.zeros(2))]
    assert_close(mas(model, batches)["bias"], torch.tensor([2.0]))
    assert_close(mas(model, batches, batch_size=2)["bias"], torch.tensor([0.0]))


def test_scp_squares_after_the_mean_over_the_whole_task() -> None:
    """x̄ = 0 over two batches, though in neither."""
    batches = [(torch.ones(1, 1), torch.zeros(1)), (-torch.ones(1, 1), torch.zeros(1))]
    assert_close(sliced_cramer(nn.Linear(1, 4), batches, ALL)["weight"], torch.zeros(4, 1))


def test_fisher_gives_each_sample_its_own_softmax() -> None:
    model = mlp().double()
    x, y = data((1, 2, 3), 1)
    copies = [(x.repeat(5, 1, 1, 1), y.repeat(5))]
    for labels in ("exact", "empirical"):
        assert_close(fisher(model, copies, labels=labels), fisher(model, [(x, y)], labels=labels), **ROUNDING)


def test_sampled_fisher_draws_one_label_per_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = torch.multinomial
    monkeypatch.setattr(torch, "multinomial", lambda *a, **k: drawn.append(draw(*a, **k)) or drawn[-1])
    x, y = data((1, 2, 3))
    fisher(mlp().double(), cut(x, y), labels="sampled", generator=seeded())
    assert sum(labels.numel() for labels in drawn) == len(x)


def test_exact_fisher_keeps_its_digits_when_the_model_is_sure() -> None:
    """Logits 20 apart: 1 − p is 0 in float32, 2e-9 in truth; a logit of 20 rounds to 1e-6, squared twice over."""
    model = nn.Linear(3, 3)
    model.weight.data = 20 * torch.eye(3)
    x, y = torch.eye(3) + 0.01, torch.arange(3)
    for labels, slow in (("exact", reference.fisher_exact(model, x, [0, 1, 2])),
                         ("empirical", reference.fisher_of_labels(model, x, y, [0, 1, 2]))):  # fmt: skip
        ours = fisher(model, [(x, y)], labels=labels)
        assert float(slow["weight"].min()) > 0
        assert_close({k: v.double() for k, v in ours.items()}, slow, rtol=1e-5, atol=0)


# Estimates --------------------------------------------------------------------------------------------------------


def test_sampled_fisher_converges_to_the_exact() -> None:
    """20 groups of 400 draws; 4.5 standard errors of their mean, which one of 24 entries passes in one seed of 170."""
    model = mlp().double()[-1]
    x, y = data((5,), 4)
    many, generator = [(x.repeat(100, 1), y.repeat(100))], seeded()
    groups = [fisher(model, many, labels="sampled", generator=generator) for _ in range(20)]
    for name, exact in fisher(model, [(x, y)]).items():
        estimates = torch.stack([group[name] for group in groups])
        error = estimates.std(0) / len(groups) ** 0.5
        assert ((estimates.mean(0) - exact).abs() < 4.5 * error).all()


def test_sliced_cramer_converges_to_its_expectation() -> None:
    """One slice's square has a relative deviation of at most √2, so 20,000 of them 1 %; 5 % is five of those."""
    model = mlp().double()
    x, y = data((1, 2, 3))
    sliced = sliced_cramer(model, cut(x, y), ALL, num_slices=20_000, generator=seeded())
    assert_close(sliced, sliced_cramer(model, cut(x, y), ALL), rtol=0.05, atol=1e-13)


def test_slices_have_unit_length_and_no_preferred_axis() -> None:
    slices = unit_slices(20_000, 3, seeded())
    assert_close(slices.norm(dim=1), torch.ones(20_000))
    assert_close(slices.T @ slices / 20_000, torch.eye(3) / 3, atol=0.01, rtol=0)  # standard error 0.002


# Borders ----------------------------------------------------------------------------------------------------------


def test_importance_refuses_what_it_cannot_mean() -> None:
    x, y = data((1, 2, 3))
    model, batches = mlp().double(), cut(x, y)
    hidden = torch.tensor([False, True, True, True])
    calls: dict[str, Callable[[], Params]] = {
        "labels must be one of exact, sampled, empirical, weighted, pred, batched, got 'true'": lambda: fisher(
            model, batches, labels="true"
        ),
        "generator must be .* got None": lambda: fisher(model, batches, labels="sampled"),
        "num_slices must be .* got 0": lambda: sliced_cramer(model, batches, ALL, num_slices=0, generator=seeded()),
        "num_slices must be .* got 3 and None": lambda: sliced_cramer(model, batches, ALL, num_slices=3),
        r"labels must be visible columns, \[1, 2, 3\], got \[0, 1, 3\]": lambda: fisher(
            model, batches, labels="empirical", visible=hidden
        ),
        r"must be visible columns, \[1, 2, 3\], got \[0, 1\]": lambda: fisher(
            model, batches, labels="batched", batch_size=2, visible=hidden
        ),
        r"visible must be a bool tensor \(4,\).*\(5,\)": lambda: sliced_cramer(model, batches, ALL.new_ones(5)),
        r"visible must be a bool tensor \(4,\)": lambda: mas(model, batches, visible=torch.ones(4)),
        "at least one True": lambda: mas(model, batches, visible=torch.zeros(4, dtype=torch.bool)),
        "batches must hold at least one sample, got none": lambda: fisher(model, []),
        "batches must hold .*, got none": lambda: sliced_cramer(model, [], ALL),
        r"logits \(B, K\), got shape \(3, 1, 2, 4\)": lambda: mas(nn.Linear(3, 4).double(), batches),
    }
    for message, call in calls.items():
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(ValueError, match="power must be 1 or 2, got 3"):
        mean_power_gradient(model, batches, lambda z, y: (z[None], z[None, :, 0]), power=3)


class Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.what = nn.Linear(6, 4).double(), what

    def forward(self, x: Tensor) -> object:
        return self.what(self.layer(x))


@pytest.mark.parametrize("estimator", OURS)
def test_model_that_does_not_return_logits_is_refused_in_one_line(estimator: str) -> None:
    wrong: dict[str, Callable[[Tensor], object]] = {
        r"one tensor \(B, K\), got tuple": lambda z: (z, z),
        r"one tensor \(B, K\), got dict": lambda z: {"logits": z},
        r"logits \(B, K\), got shape \(3, 1, 4\) for B = 3": lambda z: z.unsqueeze(1),
        r"logits \(B, K\), got shape \(3,\) for B = 3": lambda z: z[:, 0],
        r"logits \(B, K\), got shape \(4, 3\) for B = 3": lambda z: z.t(),
    }
    for message, what in wrong.items():
        with pytest.raises(ValueError, match=f"^model must return {message}$" if "got shape" in message else message):
            OURS[estimator](Returns(what), cut(*data((6,))))
