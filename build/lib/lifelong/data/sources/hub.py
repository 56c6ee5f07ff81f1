"""Image sets of the Hugging Face hub (https://huggingface.co/datasets), through its library `datasets`: extra hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lifelong.data.source import Source, check_counts, fraction_held_out, train_and_test
from lifelong.data.sources.array_cache import cached, fingerprint
from lifelong.data.sources.hub_columns import integer_labels, openings
from lifelong.data.sources.hub_place import Hub, LocalCopy, Place
from lifelong.data.sources.pixels import PixelFormat, write_images


def hub(
    name: str | None = None,
    path: str | None = None,
    config: str | None = None,
    revision: str | None = None,
    train_split: str = "train",
    test_split: str | None = "test",
    image: str = "image",
    label: str = "label",
    mode: str | None = None,
    size: int | Sequence[int] | None = None,
    test_fraction: float | None = None,
    num_train: int | None = None,
    num_test: int | None = None,
    num_classes: int | None = None,
    cache: str | None = None,
) -> Source:
    """A set by its name on the hub, downloaded and decoded once; or parquet files in the hub's format.

    Args:
        name: of the set on the hub, e.g. ylecun/mnist.
        path: a folder of parquet files as the hub has them, or one such file, read instead of asking the hub.
        config, revision: of the set, as `datasets.load_dataset` takes them; of a folder: config is a folder below it.
        train_split, test_split: splits, or parts of them: "train[:1000]"; test_split None: held out of train_split.
        image, label: names of the columns. Labels are class labels, integers from 0, or texts (sorted).
        mode, size: what images are brought to, see PixelFormat.
        test_fraction: where test_split is None, the stratified share held out; None: a fifth.
        num_train, num_test, num_classes: what is known of the set, and checked; None: not known.
        cache: see `array_cache.cached`.

    Raises:
        ValueError: the set, a split or a column is not there, the hub cannot be reached, `datasets` is not installed,
            an image cannot be read, counts are not as known, a setting is not allowed.
    """
    if not name and not path:
        raise ValueError("dataset.source.name must be a set on the hub, e.g. ylecun/mnist, got null (and path is null)")
    place: Place = LocalCopy(path, config, revision) if path else Hub(str(name), config, revision)
    fraction = fraction_held_out(test_fraction, test_split is not None, "beside a test_split")
    splits = [train_split] if test_split is None else [train_split, test_split]
    pixel_format = PixelFormat(mode, size)
    request = {
        "hub": place.as_request(),
        "files": fingerprint(place.files(splits)),
        "splits": splits,
        "test_fraction": None if test_split else fraction,
        "columns": [image, label],
        **pixel_format.as_request(),
    }
    short = Path(name or str(path)).stem
    source = cached(short, request, cache, partial(_decode, place, splits, fraction, (image, label), pixel_format))
    check_counts(source, num_train, num_test, num_classes)
    return source


def _decode(
    place: Place, splits: Sequence[str], fraction: float, columns: tuple[str, str], pixel_format: PixelFormat, out: Path
) -> list[str]:
    """Write train and test part; returns the names of the classes."""
    image, label = columns
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        sets = [place.load(split, scratch) for split in splits]
        classes, labels = integer_labels(sets, label)
        if len(sets) == 1:
            positions = [p.numpy() for p in train_and_test(torch.from_numpy(labels[0]), fraction)]
            sets, labels = [sets[0].select(p) for p in positions], [labels[0][p] for p in positions]
        for part, dataset, numbers in zip(("train", "test"), sets, labels, strict=True):
            np.save(out / f"{part}_labels.npy", numbers)
            write_images(out / f"{part}_images.npy", openings(dataset, image, part), len(dataset), pixel_format)
        del sets, dataset
    return classes
