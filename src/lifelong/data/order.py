"""In which order a stream visits its tasks, and what they are called there."""

import re
from collections.abc import Iterable, Sequence
from itertools import chain, count

import torch

from lifelong.data.seeds import derived_generator

ORDER, CLASS_ORDER = 3, 5
"""Keep the draws of orders apart from the other draws of a seed."""


def as_order(value: str | Sequence[int] | None, num: int, seed: int, key: str, draw: int) -> list[int]:
    """A permutation of 0..num − 1: "given" (or None), "reversed", "shuffle" or a list.

    "shuffle" is drawn by `seed`, "shuffle:7" by 7 whatever the seed, so that orders can vary while all else stays.
    `draw` is ORDER or CLASS_ORDER. Raises ValueError, naming `key`, for anything else.
    """
    if shuffle := re.fullmatch(r"shuffle(?::(\d+))?", value) if isinstance(value, str) else None:
        generator = derived_generator(int(shuffle.group(1) or seed), 0, draw)
        return torch.randperm(num, generator=generator).tolist()
    if value in (None, "given", "reversed"):
        return list(range(num))[:: -1 if value == "reversed" else 1]
    if not is_integers(value) or sorted(value) != list(range(num)):
        words = "given, reversed, shuffle, shuffle:SEED"
        raise ValueError(f"{key} must be {words}, a permutation of 0..{num - 1} or null, got {value!r}")
    return list(value)  # type: ignore[arg-type]


def windowed(order: Sequence[int], window: Sequence[int] | None) -> Sequence[int]:
    """order[first:stop] of window = [first, stop], None is all of it; raises ValueError if any of it is outside."""
    if window is None:
        return order
    if not is_integers(window) or len(window) != 2 or not 0 <= window[0] < window[1] <= len(order):
        allowed = f"[first, stop] with 0 <= first < stop <= {len(order)} or null"
        raise ValueError(f"dataset.window must be {allowed}, got {window!r}")
    return order[window[0] : window[1]]


def is_integers(value: object) -> bool:
    """Whether it is a list of integers; a truth value is none."""
    return isinstance(value, Sequence) and not isinstance(value, str) and all(type(v) is int for v in value)


def plain_names(names: Iterable[str]) -> list[str]:
    """Names fit for metric keys and table headers: letters, digits, _ . + - alone, and the second of a kind with _1
    behind it, the third with _2."""
    result: dict[str, None] = {}  # in order, and quick to look up among 10,000
    for name in (re.sub(r"[^\w.+-]+", "_", name) for name in names):
        candidates = chain([name], (f"{name}_{i}" for i in count(1)))
        result[next(candidate for candidate in candidates if candidate not in result)] = None
    return list(result)
