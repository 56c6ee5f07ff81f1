"""Copies of sets of the hub are read as the library reads them; what is wrong with one is said in one line."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifelong.config.build import build
from lifelong.config.schema import compose
from lifelong.data.sources import cache as module
from lifelong.data.sources.hub import hub
from parquet_files import CLASS_LABEL, labels, pixels, write

datasets = pytest.importorskip("datasets", reason="needs the extra hub")


def channels_first(images: np.ndarray) -> list:
    return images.transpose(0, 3, 1, 2).tolist()


def test_parts_are_what_the_library_itself_reads(zoo: Path, cache: str, tmp_path: Path) -> None:
    source = hub(path=str(zoo), cache=cache)
    assert (source.name, source.classes) == ("zoo", ("ape", "bee", "cow"))
    for split, ours in (("train", source.train), ("test", source.test)):
        theirs = datasets.load_dataset(str(zoo), split=split, cache_dir=str(tmp_path / "theirs"))
        assert ours.inputs.tolist() == [np.asarray(image).transpose(2, 0, 1).tolist() for image in theirs["image"]]
        assert ours.labels.tolist() == list(theirs["label"])
    assert source.test.inputs.tolist() == channels_first(pixels(3, 9))


def test_decoded_once_and_needed_no_library_then(zoo: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub(path=str(zoo), cache=cache)
    monkeypatch.setattr(module, "decoded", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if the extra hub were not installed
    assert hub(path=str(zoo), cache=cache).train.inputs.equal(first.train.inputs)
    assert not list(Path(cache).glob("*/")), "no files of the library are left"


def test_what_is_asked_for_otherwise_is_decoded_anew(zoo: Path, cache: str) -> None:
    held_out = {"test_split": None, "test_fraction": 0.5}
    others: list[dict[str, Any]] = [{}, {"mode": "L"}, {"size": 4}, {"test_split": "train"}, held_out]
    for options in others:
        hub(path=str(zoo), **options, cache=cache)
    assert len(list(Path(cache).glob("*.pt"))) == 5


def test_a_configuration_is_a_folder_or_what_the_set_s_own_page_calls_so(zoo: Path, cache: str) -> None:
    for part in ("train", "test"):
        write(zoo / "cropped" / f"{part}-00000-of-00001.parquet", [*pixels(3, 5)], labels(3))
    assert len(hub(path=str(zoo), cache=cache).train) == 6
    assert len(hub(path=str(zoo), config="cropped", cache=cache).train) == 3
    entries = [f"  - split: {split}\n    path: data/train-0000{i}-*\n" for i, split in enumerate(("train", "test"))]
    page = f"---\nconfigs:\n- config_name: halves\n  data_files:\n{''.join(entries)}---\n# Zoo\n"
    (zoo / "README.md").write_text(page)
    assert hub(path=str(zoo), config="halves", cache=cache).test.inputs.tolist() == channels_first(pixels(3, 1))


@pytest.mark.parametrize(
    ("values", "feature", "classes", "expected"),
    [
        ([2, 0, 1], {"dtype": "int64", "_type": "Value"}, ("0", "1", "2"), [2, 0, 1]),
        (["b", "a", "c"], {"dtype": "string", "_type": "Value"}, ("a", "b", "c"), [1, 0, 2]),
        ([2, 0, 1], CLASS_LABEL, ("ape", "bee", "cow"), [2, 0, 1]),
        ([2, 0, 1], None, ("0", "1", "2"), [2, 0, 1]),  # no metadata: plain structs and integers
    ],
)
def test_labels_are_classes_integers_or_texts(
    tmp_path: Path, cache: str, values: list, feature: dict[str, Any] | None, classes: tuple, expected: list[int]
) -> None:
    for part in ("train", "test"):
        write(tmp_path / "set" / f"{part}.parquet", [*pixels(3)], values, ("img", "fine"), feature)
    source = hub(path=str(tmp_path / "set"), image="img", label="fine", cache=cache)
    assert source.classes == classes
    assert source.train.labels.tolist() == expected
    assert source.test.inputs.tolist() == channels_first(pixels(3))


PRESETS = ("mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn", "tiny_imagenet")


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_reads_a_set_with_its_columns_and_refuses_other_counts(preset: str, tmp_path: Path, cache: str) -> None:
    node = compose([f"dataset/source={preset}", f"dataset.source.path={tmp_path}", f"dataset.source.cache={cache}"])
    node, num_classes = node.dataset.source, node.dataset.source.counts[2]
    feature = {"names": [str(c) for c in range(num_classes)], "_type": "ClassLabel"}
    for part in (node.train_split, node.test_split):
        path = tmp_path / (node.config or "data") / f"{part}-00000-of-00001.parquet"
        write(path, [*pixels(3)], labels(3), (node.image, node.label), feature)
    found = rf"{node.name.split('/')[1]} has \[3, 3, {num_classes}\] \(train, test, classes\), got \[\d+, \d+, \d+\]"
    with pytest.raises(ValueError, match=rf"^dataset.source.counts must be those of the set, .*: {found}$"):
        build(node, "dataset.source")
    node.counts = [3, 3, num_classes]
    source = build(node, "dataset.source")
    assert source.train.inputs.shape == (3, 1 if node.mode == "L" else 3, 6, 5)
    assert len(source.classes) == num_classes


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        hub(**options)
    assert str(error.value).startswith("dataset.source")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pic"}, "^dataset.source.image must be one of the columns image, label, got 'pic'$"),
        ({"label": "fine"}, "^dataset.source.label must be one of the columns image, label, got 'fine'$"),
        ({"image": "label"}, "^dataset.source.image must name a column of images, got 'label' of ClassLabel"),
        ({"label": "image"}, "^dataset.source.label must name a column of class labels, .* got 'image' of Image"),
        ({"test_split": "val"}, r"^dataset.source.path '/.*/zoo' cannot be loaded with .* 'val', .*: Unknown split"),
        ({"train_split": "train[:x]"}, r"cannot be loaded with config None, split 'train\[:x\]', "),
        ({"train_split": "train[:0]"}, r"split 'train\[:0\]', .* corresponds to no data"),
        ({"config": "cropped"}, r"with config 'cropped', .*: BuilderConfig 'cropped' not found"),
        ({"revision": "main"}, "^dataset.source.revision must be null where path is set, got 'main'$"),
        ({"test_fraction": 0.2}, "^dataset.source.test_fraction must be null beside a test_split, got 0.2$"),
        ({"counts": [6, 4, 3]}, r"zoo has \[6, 3, 3\] \(train, test, classes\), got \[6, 4, 3\]$"),
        ({"path": None}, r"^dataset.source.name must be a set on the hub, .* got null \(and path is null\)$"),
        ({"path": "/none"}, "^dataset.source.path must be a folder of parquet files or one such file, got '/none'$"),
    ],
)
def test_settings_that_do_not_fit_are_refused(zoo: Path, cache: str, options: dict[str, Any], message: str) -> None:
    refused(message, **({"path": str(zoo), "cache": cache} | options))


THREE = [0, 1, 2]
UNUSED = r"^dataset.source: image 2 of test cannot be used"


@pytest.mark.parametrize(
    ("images", "values", "message"),
    [
        ([*pixels(2), b"no image"], THREE, rf"{UNUSED} \(.*\)$"),
        ([*pixels(2), None], THREE, rf"{UNUSED} \(there is none\)$"),
        ([*pixels(2), pixels(1)[0, :4]], THREE, r"^dataset.source.size must be set .* image 2 of test is \(3, 4, 5\)"),
        ([*pixels(2), pixels(1, mode="L")[0]], THREE, "^dataset.source.mode must be set where images differ: image 2"),
        (
            [*pixels(3)],
            [0, 1, None],
            "^dataset.source.label must name .*, got 'label' with missing labels$",
        ),
    ],
)
def test_unusable_data_are_refused_and_named(zoo: Path, cache: str, images: list, values: list, message: str) -> None:
    write(zoo / "data" / "test-00000-of-00001.parquet", images, values)
    refused(message, path=str(zoo), cache=cache)
    assert not list(Path(cache).glob("*/")), "nothing is kept of what was refused"


def test_a_single_file_is_the_training_split_alone(zoo: Path, cache: str) -> None:
    file = str(zoo / "data" / "train-00000-of-00002.parquet")
    source = hub(path=file, test_split="train[2:]", train_split="train[:2]", cache=cache)
    assert (len(source.train), len(source.test)) == (2, 1)
    refused(r"^dataset.source.path '/.*parquet' cannot be loaded .*: Unknown split", path=file, cache=cache)


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
        (datasets.exceptions.DatasetNotFoundError("No 'a/b'"), "^dataset.source.name 'a/b' cannot .*: No 'a/b'$"),
        (ConnectionError("refused"), r"^dataset.source.name 'a/b' is neither on this machine nor in reach \(refused\)"),
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


def test_without_the_extra_it_says_what_to_install(cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    message = r"^dataset.source hub: the library datasets is not installed: pip install -e .\[hub\]$"
    refused(message, name="ylecun/mnist", cache=cache)
