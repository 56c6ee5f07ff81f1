"""Columns of a set in the hub's format, as integer labels and images to open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from lifelong.data.sources.pixels import Opening

if TYPE_CHECKING:
    from datasets import Dataset

BATCH = 256


def integer_labels(sets: Sequence[Dataset], column: str) -> tuple[list[str], list[np.ndarray]]:
    """Names of the classes, and for each set the labels (N,) int64.

    Class labels keep their names and order; of integers the number is the name, 0 up to the largest; texts are sorted.

    Raises:
        ValueError: no such column, or one that is not of labels.
    """
    import pyarrow

    _check_column(sets[0], column, "label")
    tables = [dataset.select_columns([column]).with_format("arrow")[:][column] for dataset in sets]
    if any(table.null_count for table in tables):
        raise ValueError(f"dataset.source.label must name a column without gaps, got {column!r} with missing labels")
    kind = tables[0].type
    if pyarrow.types.is_integer(kind):
        numbers = [table.to_numpy().astype(np.int64) for table in tables]
        names = getattr(sets[0].features[column], "names", None)
        return list(names or map(str, range(max(int(n.max(initial=0)) for n in numbers) + 1))), numbers
    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        texts = [table.to_pylist() for table in tables]
        classes = sorted(set().union(*texts))
        position = {name: i for i, name in enumerate(classes)}
        return classes, [np.array([position[text] for text in part], dtype=np.int64) for part in texts]
    raise ValueError(
        f"dataset.source.label must name a column of class labels, integers or texts, got {column!r} of {kind}"
    )


def openings(dataset: Dataset, column: str, part: str) -> Iterator[Opening]:
    """The images of a column, read in batches, decoded when opened.

    Raises:
        ValueError: no such column, or one that is not of images.
    """
    import datasets

    _check_column(dataset, column, "image")
    feature = dataset.features[column]
    encoded = isinstance(feature, dict) and set(feature) == {"bytes", "path"}  # an image column without its metadata
    if not isinstance(feature, datasets.Image) and not encoded:
        raise ValueError(
            f"dataset.source.image must name a column of images, got {column!r} of {feature}; "
            "dataset/source=arrays takes pixels"
        )
    raw = dataset.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    position = 0
    for batch in raw.iter(BATCH):
        for item in batch[column]:
            yield f"image {position} of {part}", partial(_opened, datasets.Image(), item)
            position += 1


def _opened(feature: Any, item: dict[str, Any] | None) -> Any:
    if item is None:
        raise ValueError("there is none")
    return feature.decode_example(item)


def _check_column(dataset: Dataset, column: str, option: str) -> None:
    if column not in dataset.column_names:
        raise ValueError(
            f"dataset.source.{option} must be one of the columns {', '.join(dataset.column_names)}, got {column!r}"
        )
