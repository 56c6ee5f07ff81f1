"""What is wrong with a set in the hub's format, or with reaching one, is said in one line that names it."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lifelong.data.sources.hub import hub
from parquet_files import CLASS_LABEL, encoded, labels, pixels, write

datasets = pytest.importorskip("datasets", reason="needs the extra hub")


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        hub(**options)
    assert str(error.value).startswith("dataset.source")
    assert "\n" not in str(error.value)


def rewritten(zoo: Path, images: Sequence[Any], values: Sequence[Any], feature: dict | None = CLASS_LABEL) -> None:
    write(zoo / "data" / "test-00000-of-00001.parquet", images, values, label_feature=feature)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pic"}, "^dataset.source.image must be one of the columns image, label, got 'pic'$"),
        ({"label": "fine"}, "^dataset.source.label must be one of the columns image, label, got 'fine'$"),
        ({"image": "label"}, "^dataset.source.image must name a column of images, got 'label' of ClassLabel"),
        (
            {"label": "image"},
            "^dataset.source.label must name a column of class labels, integers or texts, got 'image'",
        ),
        ({"test_split": "val"}, r"^dataset.source.path must hold val.parquet or val-\*.parquet, got none below '/"),
        ({"train_split": "train[:x]"}, r"split 'train\[:x\]' of /.* cannot be read \(.*\)$"),
        ({"config": "cropped"}, r"got none below '/.*/zoo/cropped'$"),
        ({"revision": "main"}, "^dataset.source.revision must be null where path is set, got 'main'$"),
        ({"test_fraction": 0.2}, "^dataset.source.test_fraction must be null beside a test_split, got 0.2$"),
        ({"mode": "rgb"}, "^dataset.source.mode must be L, RGB or null, got 'rgb'$"),
        ({"train_split": "train[:0]"}, r"split 'train\[:0\]' of /.* cannot be read \(.* corresponds to no data"),
        (
            {"num_train": 60000},
            "^dataset.source zoo: num_train must be 60000, got 6; .* set dataset.source.num_train=null$",
        ),
        (
            {"test_split": None, "test_fraction": 0.1},
            "^dataset.source.test_fraction must leave both parts examples of 6, got 0.1$",
        ),
        ({"num_test": 4}, "num_test must be 4, got 3"),
        ({"num_classes": 10}, "num_classes must be 10, got 3"),
    ],
)
def test_settings_that_do_not_fit_the_set_are_refused(
    zoo: Path, cache: str, options: dict[str, Any], message: str
) -> None:
    refused(message, **({"path": str(zoo), "cache": cache} | options))


def test_known_counts_that_are_right_pass(zoo: Path, cache: str) -> None:
    hub(path=str(zoo), num_train=6, num_test=3, num_classes=3, cache=cache)


@pytest.mark.parametrize(
    ("images", "values", "message"),
    [
        ([*pixels(2), b"no image"], labels(3), r"^dataset.source: image 2 of test cannot be used \(.*\)$"),
        ([*pixels(2), encoded(pixels(1)[0])[:60]], labels(3), r"^dataset.source: image 2 of test cannot be used"),
        ([*pixels(2), None], labels(3), r"^dataset.source: image 2 of test cannot be used \(there is none\)$"),
        (
            [*pixels(2), pixels(1)[0, :4]],
            labels(3),
            r"^dataset.source.size must be set .* image 2 of test is \(3, 4, 5\)",
        ),
        (
            [*pixels(2), pixels(1, mode="L")[0]],
            labels(3),
            "^dataset.source.mode must be set where images differ: image 2",
        ),
        ([*pixels(3)], [0, 1, None], "^dataset.source.label must name a column without gaps, got 'label'"),
        ([*pixels(3)], [-1, -1, -1], r"^dataset.source zoo: test labels must be 0\.\.2, got -1\.\.-1$"),
        ([*pixels(3, mode="L")], labels(3), "train and test images must be of one shape"),
    ],
)
def test_data_that_cannot_be_used_are_refused_and_named(
    zoo: Path, cache: str, images: list, values: list, message: str
) -> None:
    rewritten(zoo, images, values)
    refused(message, path=str(zoo), cache=cache)
    assert not list(Path(cache).glob("*/")), "nothing is kept of what was refused"


def test_a_file_cut_short_is_refused(zoo: Path, cache: str) -> None:
    file = zoo / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:200])
    refused(r"^dataset.source.path: split 'train' of /.*/zoo cannot be read \(.*\)$", path=str(zoo), cache=cache)


def test_a_single_file_has_no_test_split(zoo: Path, cache: str) -> None:
    file = str(zoo / "data" / "train-00000-of-00002.parquet")
    refused("^dataset.source.path must be a folder for the split 'test', got '/.*parquet'$", path=file, cache=cache)


def test_neither_name_nor_path_or_no_such_path_is_refused(tmp_path: Path) -> None:
    refused(r"^dataset.source.name must be a set on the hub, e.g. ylecun/mnist, got null \(and path is null\)$")
    refused("^dataset.source.path must be a folder of parquet files or one such file, got '/none'$", path="/none")


def test_without_a_network_it_says_how_to_fetch_the_set(cache: str) -> None:
    refused(
        r"^dataset.source.name 'ylecun/mnist' is neither on this machine nor in reach \(.*\): fetch it where there is "
        r"a network by `hf download --repo-type dataset ylecun/mnist --local-dir DIR` and set dataset.source.path=DIR$",
        name="ylecun/mnist",
        cache=cache,
    )


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist"),
            "^dataset.source.name must be a set on",
        ),
        (ConnectionError("refused"), r"^dataset.source.name 'a/b' is neither on this machine nor in reach \(refused\)"),
        (
            ValueError("BuilderConfig 'x' not found.\nAvailable: ['y']"),
            r"^dataset.source.name 'a/b' cannot be loaded with config 'x', split 'train', .*: Builder.*\['y'\]$",
        ),
        (RuntimeError(), "revision None: RuntimeError$"),
    ],
)
def test_what_the_library_raises_is_one_line(
    cache: str, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def load_dataset(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    refused(message, name="a/b", config="x", cache=cache)


@pytest.mark.parametrize("option", ["name", "path"])
def test_without_the_extra_it_says_what_to_install(
    zoo: Path, cache: str, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(
        r"^dataset.source hub: the library datasets is not installed: pip install -e .\[hub\]$",
        **{option: str(zoo)},
        cache=cache,
    )
