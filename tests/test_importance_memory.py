"""Memory that runs out while importance is computed: smaller pieces, the same sums; else one line."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from importance_models import ROUNDING, cnn, mlp
from lifelong.importance import closed, estimators, fisher, local, mas, sliced_cramer
from lifelong.importance.local import local_mas
from lifelong.importance.sums import over_batches, ran_out
from lifelong.runs.checksum import load_with_checksum
from runs import TINY, command

LIMIT = 5
"""Samples at once."""
ERRORS = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."),
    "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
    "python": MemoryError(),
}


def running_out(patch: pytest.MonkeyPatch, owner: Any, name: str, size: Callable[..., int], error: Exception) -> list:
    """owner.name works, and then fails if size(*arguments) is beyond the limit: what it did must be taken back."""
    original, seen = getattr(owner, name), []

    def limited(*arguments: Any) -> Any:
        result = original(*arguments)
        seen.append(size(*arguments))
        if seen[-1] > LIMIT:
            raise error
        return result

    patch.setattr(owner, name, limited)
    return seen


def batches(shape: tuple[int, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    for seed, num in enumerate((17, 12, 3)):
        x = torch.randn(num, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        yield x, torch.arange(num) % 4


batched = partial(fisher, labels="batched", batch_size=17)
scp = partial(sliced_cramer, visible=torch.ones(4, dtype=torch.bool))
PLACES: dict[str, tuple[Any, str, Callable[..., int], Callable[..., Any], Callable[[], nn.Module], tuple[int, ...]]] = {
    "fisher": (closed, "_add_outer_products", lambda seen, square, *_: len(square), fisher, mlp, (1, 2, 3)),
    "mas": (closed, "_add_outer_products", lambda seen, square, *_: len(square), mas, mlp, (1, 2, 3)),
    "convolutions": (closed, "_add_in_chunks", lambda name, pairs, *_: len(pairs[0][0].a), fisher, cnn, (2, 6, 5)),
    "scp": (estimators, "gradients", lambda model, z, v: len(z), scp, mlp, (1, 2, 3)),
    "batched": (estimators, "gradients", lambda model, z, v: len(z), batched, mlp, (1, 2, 3)),
    "local": (local, "_add", lambda sums, name, y_out, y_in: len(y_out), local_mas, mlp, (1, 2, 3)),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_batch_is_halved_until_it_fits_and_the_result_is_the_same(
    place: str, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, size, estimate, make, shape = PLACES[place]
    model = make().double()
    expected = estimate(model, batches(shape))
    seen = running_out(monkeypatch, owner, name, size, ERRORS[error])
    assert_close(estimate(model, batches(shape)), expected, **ROUNDING)
    assert max(seen) > LIMIT  # it did run out
    assert {n for n in seen if n > 4} == {17, 8}  # 17 → 8 → 4, and never again a batch of 12 as a whole


def test_what_did_not_run_out_of_memory_is_not_tried_again() -> None:
    calls = []

    def work(x: Tensor, y: Tensor) -> None:
        calls.append(len(x))
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        over_batches(batches((1,)), work, {})
    assert calls == [17]


def test_the_system_saying_no_is_known_as_that() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**59, dtype=torch.uint8)
    assert ran_out(error.value)


def test_one_sample_that_does_not_fit_is_one_line_and_the_last_checkpoint_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise ERRORS["cuda"]

    settings = (*TINY, "method=ewc", "checkpoint_steps=2", f"root={tmp_path}")
    with monkeypatch.context() as patch:
        patch.setattr(closed, "_add_outer_products", full)
        said = command(*settings)
    assert said.code == 1
    assert said.err == (
        "error: importance does not fit into memory, even one sample at a time: "
        "CUDA out of memory. Tried to allocate 1 GiB.\n"
    )
    assert load_with_checksum(next(tmp_path.rglob("last.ckpt")))["global_step"] == 6
    assert command(*settings).code == 0
