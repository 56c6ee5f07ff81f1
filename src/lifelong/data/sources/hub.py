"""Image sets of the Hugging Face hub (https://huggingface.co/datasets), through its library `datasets`: extra hub."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lifelong.data.source import Source, fraction_held_out
from lifelong.data.sources.cache import Decoding, cached, fingerprint
from lifelong.data.sources.pixels import Opening, PixelFormat

if TYPE_CHECKING:
    from datasets import Dataset


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
    counts: Sequence[int] | None = None,
    cache: str | None = None,
) -> Source:
    """A set by its name on the hub, downloaded and decoded once; or a copy of one on this machine, in `path`.

    The options are explained in configs/dataset/source/hub.yaml; config and revision are those of
    `datasets.load_dataset`, of a folder config may be one below it. For mode and size see PixelFormat.

    Raises:
        ValueError: the set, a split or a column is not there, the hub cannot be reached, `datasets` is not installed,
            an image cannot be read, counts are not as known, a setting is not allowed.
    """
    if name is None and path is None:
        raise ValueError("dataset.source.name must be a set on the hub, e.g. ylecun/mnist, got null (and path is null)")
    fraction = fraction_held_out(test_fraction, test_split is not None, "beside a test_split")
    splits = [train_split] if test_split is None else [train_split, test_split]

    def decode(scratch: str) -> Decoding:
        sets = [_loaded(name, path, config, revision, split, scratch) for split in splits]
        for option, column in (("image", image), ("label", label)):
            if column not in (names := sets[0].column_names):
                message = f"must be one of the columns {', '.join(names)}, got {column!r}"
                raise ValueError(f"dataset.source.{option} {message}")
        classes, labels = integer_labels(sets, label)
        images = [openings(dataset, image, split) for dataset, split in zip(sets, splits, strict=True)]
        return classes, list(zip(labels, images, strict=True))

    asked = {"hub": [None if path else name, config, revision], "splits": splits, "columns": [image, label]}
    asked["files"] = fingerprint(_files(path, revision)) if path else []
    source = cached(Path(name or str(path)).stem, asked, PixelFormat(mode, size), fraction, cache, decode)
    found = [len(source.train), len(source.test), len(source.classes)]
    if counts is not None and found != list(counts):
        raise ValueError(
            f"dataset.source.counts must be those of the set, or null where a part of it is wanted: {source.name} has "
            f"{found} (train, test, classes), got {list(counts)}"
        )
    return source


def _files(path: str, revision: str | None) -> list[Path]:
    """All files a local set is read from."""
    if revision is not None:
        raise ValueError(f"dataset.source.revision must be null where path is set, got {revision!r}")
    root = Path(path).expanduser().resolve()
    files = [root] if root.suffix == ".parquet" and root.is_file() else sorted(root.rglob("*.parquet"))
    if not files:
        raise ValueError(f"dataset.source.path must be a folder of parquet files or one such file, got {path!r}")
    return [*files, *root.glob("README.md")]  # it says which files are which split


def _loaded(
    name: str | None, path: str | None, config: str | None, revision: str | None, split: str, scratch: str
) -> Dataset:
    """A split of the set in `path`, or of the one of that name, downloaded into the cache of `datasets` (HF_HOME)."""
    load = _library().load_dataset
    try:
        if path is None:
            return load(name, config, split=split, revision=revision)
        root = Path(path).expanduser().resolve()
        local = partial(load, split=split, cache_dir=scratch)
        if root.is_file():
            return local("parquet", data_files=str(root))
        return local(str(root / config)) if config and (root / config).is_dir() else local(str(root), config)
    except ConnectionError as error:
        raise ValueError(
            f"dataset.source.name {name!r} is neither on this machine nor in reach ({_reason(error)}): fetch "
            f"it where there is a network by `hf download --repo-type dataset {name} --local-dir DIR` "
            "and set dataset.source.path=DIR"
        ) from error
    except Exception as error:  # of five libraries: datasets, huggingface_hub, httpx, fsspec, pyarrow
        what = f"dataset.source.path {path!r}" if path else f"dataset.source.name {name!r}"
        options = f"config {config!r}, split {split!r}, revision {revision!r}"
        reason = _reason((path and error.__cause__) or error)
        raise ValueError(f"{what} cannot be loaded with {options}: {reason}") from error


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ValueError("dataset.source hub: the library datasets is not installed: pip install -e .[hub]") from error
    return datasets


def integer_labels(sets: Sequence[Dataset], column: str) -> tuple[list[str], list[list[int]]]:
    """Names of the classes, and for each set its labels; raises ValueError for a column that is not of labels.

    Class labels keep their names and order; of integers the number is the name, 0 up to the largest; texts are sorted.
    """
    feature: Any = sets[0].features[column]
    kind = str(getattr(feature, "dtype", feature))
    allowed = "dataset.source.label must name a column of class labels, integers or texts"
    if not kind.startswith(("int", "uint", "string", "large_string")):
        raise ValueError(f"{allowed}, got {column!r} of {feature}")
    labels = [dataset[column][:] for dataset in sets]
    if any(None in part for part in labels):
        raise ValueError(f"{allowed}, got {column!r} with missing labels")
    if "int" in kind:
        names = getattr(feature, "names", None) or range(max(max(part, default=0) for part in labels) + 1)
        return list(map(str, names)), labels
    classes = sorted(set().union(*labels))
    position = {name: i for i, name in enumerate(classes)}
    return classes, [[position[text] for text in part] for part in labels]


def openings(dataset: Dataset, column: str, split: str) -> list[Opening]:
    """The images of a column; raises ValueError for one that is not of images."""
    feature, image = dataset.features[column], _library().Image()
    encoded = isinstance(feature, dict) and set(feature) == {"bytes", "path"}  # an image column without its metadata
    if not isinstance(feature, type(image)) and not encoded:
        got = f"{column!r} of {feature}; dataset/source=arrays takes pixels"
        raise ValueError(f"dataset.source.image must name a column of images, got {got}")
    images = dataset.select_columns([column]).cast_column(column, image)

    def opened(i: int) -> Any:
        return images[i][column]

    return [(f"image {i} of {split}", partial(opened, i)) for i in range(len(images))]


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
