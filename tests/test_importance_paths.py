"""Importance by closed forms, torch.func or a loop: which is taken, that all agree, and that none leaves a trace."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
from importance_models import COVERED, ROUNDING, UNCOVERED, cnn, data, force, mlp
from lifelong.importance import fisher, mean_power_gradient, sliced_cramer, sums
from lifelong.importance.path import recorded, survey, with_closed_form
from lifelong.importance.sums import in_chunks
from lifelong.importance.traceless import as_model_input, leaving_no_trace

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")  # uneven padding is what is wanted

SHAPE = (2, 6, 5)
VISIBLE = torch.ones(4, dtype=torch.bool)


def two_outputs(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """v: a column and z itself, w: different for each sample, one of them 0."""
    v = torch.stack([torch.eye(z.shape[1], dtype=z.dtype)[y], z])
    return v, torch.arange(2 * len(z), dtype=z.dtype).view(2, -1)


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("power", [1, 2])
def test_all_paths_agree(name: str, power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    make, shape = COVERED[name]
    model = make().double()
    x, y = data(shape)
    batches = [(x, y), (x[:2], y[:2])]
    as_chosen = mean_power_gradient(model, batches, two_outputs, power=power)
    for way in ["loop", *(["func"] if name != "recurrent" else [])]:  # vmap has no rule for it
        force(monkeypatch, way)
        assert_close(mean_power_gradient(model, batches, two_outputs, power=power), as_chosen, **ROUNDING)


def left_over(model: nn.Module, x: Tensor) -> set[str]:
    """The parameters that closed forms do not take."""
    with leaving_no_trace(model):
        x = as_model_input(model, x)
        uses, z = recorded(model, x)
        return with_closed_form(model, z, uses, survey(model, x))[1]


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_closed_forms_are_taken_where_they_hold(name: str, dtype: torch.dtype) -> None:
    make, shape = COVERED[name]
    assert left_over(make().to(dtype), data(shape)[0]) == set()


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("tied by function", {"encode.weight"}),
        ("positions in the batch", {"layer.weight", "layer.bias"}),
        ("packed sequence", {f"memory.{p}_{q}_l0" for p in ("weight", "bias") for q in ("ih", "hh")}),
    ],
)
def test_closed_forms_are_left_by_those_parameters_alone_for_which_they_do_not_hold(name: str, left: set[str]) -> None:
    make, shape = UNCOVERED[name]
    for num_samples in (1, 2, 3, 4, 7):  # PositionsInTheBatch has four positions
        assert left_over(make(), data(shape, num_samples)[0]) == left


class Unruled(nn.Module):
    """A weight behind an operation without a closed form."""

    def __init__(self, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,oi->bo", x, self.weight)


def test_slow_way_is_said_once_with_the_layer_and_the_way_out(caplog: pytest.LogCaptureFixture) -> None:
    """A loop over single samples for gradients beyond the cache; closed forms for the others."""
    model = nn.Sequential(nn.Linear(20, 400), Unruled(400, 400), nn.Linear(400, 4))
    x, y = data((20,))
    for _ in range(2):
        fisher(model, [(x, y)])
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "Unruled (1)" in record.message
    assert "method.num_samples or method.labels=sampled" in record.message
    assert "Linear" not in record.message


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
def test_no_warning_of_a_library_is_heard(name: str, caplog: pytest.LogCaptureFixture) -> None:
    make, shape = (COVERED | UNCOVERED)[name]
    fisher(make().eval(), [data(shape)])
    assert [record.message for record in caplog.records if "packed" not in name] == []


def test_bias_that_a_norm_cancels_does_not_stop_the_closed_form() -> None:
    """Its gradient is zero but for rounding, in which the paths differ."""
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.GroupNorm(8, 8), nn.Flatten(), nn.Linear(96, 4))
    assert left_over(model, data(SHAPE)[0]) == set()


def test_a_later_batch_may_leave_the_closed_form() -> None:
    """A layer that is called again for some inputs only."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            z = self.layer(x)
            return self.layer(z) if bool(x.max() > 50) else z

    model = Twice().double()
    x, y = data((4,))
    x[-1] = 100.0
    batches = [(x[:4], y[:4]), (x[4:6], y[4:6]), (x[6:], y[6:])]
    assert_close(fisher(model, batches), reference.fisher_exact(model, x, [0, 1, 2, 3]), **ROUNDING)


@pytest.mark.parametrize("bound", ["CHUNK_BYTES", "HELD_BYTES"])
def test_chunks_do_not_change_the_result(path: str, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batches = cnn().double(), [data(SHAPE)]
    whole = mean_power_gradient(model, batches, two_outputs, power=2)
    monkeypatch.setitem(getattr(sums, bound), "cpu", 1)
    assert_close(mean_power_gradient(model, batches, two_outputs, power=2), whole, **ROUNDING)


def test_chunks_are_halved_when_memory_runs_out() -> None:
    done: list[tuple[int, int]] = []

    def work(chunk: slice) -> None:
        if chunk.stop - chunk.start > 5:
            raise torch.OutOfMemoryError
        done.append((chunk.start, chunk.stop))

    in_chunks(18, 100, work)
    assert done == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 18)]


# What comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_importance_is_in_the_models_dtype_and_detached(path: str, dtype: torch.dtype) -> None:
    model = mlp().to(dtype)
    for name, value in fisher(model, [data((1, 2, 3))]).items():
        assert value.dtype == dtype
        assert value.shape == model.get_parameter(name).shape
        assert not value.requires_grad


def test_bfloat16_sums_are_kept_in_float32() -> None:
    """5,000 equal terms: a bfloat16 sum would stop growing at 256."""
    model = nn.Linear(1, 2, bias=False).bfloat16()
    nn.init.zeros_(model.weight)
    batches = [(torch.ones(50, 1), torch.zeros(50, dtype=torch.int64))] * 100
    assert_close(fisher(model, batches)["weight"], torch.full((2, 1), 0.25, dtype=torch.bfloat16))


def test_unused_head_has_zero_importance(path: str) -> None:
    make, shape = COVERED["tokens"]
    importance = fisher(make(), [data(shape)])
    assert_close(importance["unused.weight"], torch.zeros(4, 5))
    assert float(importance["head.weight"].min()) > 0


def test_frozen_parameters_are_left_out(path: str) -> None:
    model, data_once = cnn(), data(SHAPE)
    expected = fisher(model, [data_once])
    for name in ("0.weight", "1.weight", "3.bias", "9.weight"):
        model.get_parameter(name).requires_grad_(False)
        del expected[name]
    assert_close(fisher(model, [data_once]), expected)


def test_model_without_trainable_parameters_has_no_importance(path: str) -> None:
    model = mlp().requires_grad_(False)
    assert fisher(model, [data((1, 2, 3))]) == sliced_cramer(model, [data((1, 2, 3))], VISIBLE) == {}


def test_output_that_no_parameter_reaches_gives_zeros(path: str) -> None:
    class Detached(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    model = nn.Sequential(nn.Linear(6, 6), Detached(6, 4).requires_grad_(False))
    for importance in (fisher(model, [data((6,))]), sliced_cramer(model, [data((6,))], VISIBLE)):
        assert_close(importance, {name: torch.zeros_like(p) for name, p in model[0].named_parameters(prefix="0")})


def test_one_visible_column_leaves_nothing_to_learn_from_the_fisher(path: str) -> None:
    model, only = nn.Linear(6, 4), torch.tensor([False, False, True, False])
    importance = fisher(model, [data((6,))], visible=only)
    assert_close(importance, {"weight": torch.zeros(4, 6), "bias": torch.zeros(4)})
