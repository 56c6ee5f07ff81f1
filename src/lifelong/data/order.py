"""In which order a stream visits its tasks, and what they are called there."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import torch

from lifelong.data.seeds import derived_generator

ORDER = 3
"""Keeps the draw of an order apart from the other draws of a seed."""


def as_permutation(value: Sequence[int] | None, num: int, key: str) -> list[int]:
    """`value` as a list; None is 0..num − 1. Raises ValueError, naming `key`, if it is no permutation of these."""
    if value is None:
        return list(range(num))
    if not _permutes(value, num):
        raise ValueError(f"{key} must be a permutation of 0..{num - 1} or null, got {value!r}")
    return list(value)


def as_order(value: str | Sequence[int] | None, num: int, seed: int) -> list[int]:
    """Which of the `num` given tasks comes when: "given" (or None), "reversed", "shuffle" or a permutation.

    "shuffle" is drawn by `seed`, "shuffle:7" by 7 whatever the seed, so that orders can vary while all else stays.

    Raises:
        ValueError: anything else.
    """
    shuffle = re.fullmatch(r"shuffle(?::(\d+))?", value) if isinstance(value, str) else None
    if shuffle:
        drawn_by = seed if shuffle.group(1) is None else int(shuffle.group(1))
        return torch.randperm(num, generator=derived_generator(drawn_by, 0, ORDER)).tolist()
    if value in (None, "given", "reversed"):
        return list(range(num))[:: -1 if value == "reversed" else 1]
    if isinstance(value, str) or not _permutes(value, num):
        words = "given, reversed, shuffle, shuffle:SEED"
        raise ValueError(f"dataset.order must be {words}, a permutation of 0..{num - 1} or null, got {value!r}")
    return list(value)


def windowed(order: Sequence[int], window: Sequence[int] | None) -> list[int]:
    """order[first:stop] of window = [first, stop]; None is all of it.

    Raises:
        ValueError: anything but 0 <= first < stop <= len(order).
    """
    if window is None:
        return list(order)
    integers = isinstance(window, Sequence) and not isinstance(window, str) and all(type(v) is int for v in window)
    if not integers or len(window) != 2 or not 0 <= window[0] < window[1] <= len(order):
        allowed = f"[first, stop] with 0 <= first < stop <= {len(order)} or null"
        raise ValueError(f"dataset.window must be {allowed}, got {window!r}")
    return list(order[window[0] : window[1]])


def _permutes(value: object, num: int) -> bool:
    integers = isinstance(value, Sequence) and not isinstance(value, str) and all(type(v) is int for v in value)
    return integers and sorted(value) == list(range(num))  # type: ignore[call-overload]


def plain_names(names: Iterable[str]) -> list[str]:
    """Names fit for metric keys and table headers: letters, digits, _ . + - alone, and the second of a kind with _1
    behind it, the third with _2."""
    seen: Counter[str] = Counter()
    result = []
    for name in (re.sub(r"[^\w.+-]+", "_", name) for name in names):
        result.append(name + (f"_{seen[name]}" if seen[name] else ""))
        seen[name] += 1
    return result


def visits(names: Sequence[str], cycles: int) -> list[str]:
    """The names of all tasks, cycle after cycle: a later visit says which it is."""
    return [name + (f"_cycle{c + 1}" if c else "") for c in range(cycles) for name in names]
