"""Sets in the hub's format are read from local parquet files as the library reads them, by presets and by hand."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lifelong.config.build import build
from lifelong.config.schema import compose
from lifelong.data.sources import hub as module
from lifelong.data.sources.hub import hub
from parquet_files import CLASS_LABEL, labels, pixels, write

datasets = pytest.importorskip("datasets", reason="needs the extra hub")


def channels_first(images: np.ndarray) -> list:
    return images.transpose(0, 3, 1, 2).tolist()


def test_parts_are_what_the_files_hold_in_their_order(zoo: Path, cache: str) -> None:
    source = hub(path=str(zoo), cache=cache)
    assert (source.name, source.classes) == ("zoo", ("ape", "bee", "cow"))
    assert source.train.images.tolist() == [*channels_first(pixels(3, 0)), *channels_first(pixels(3, 1))]
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test.images.tolist() == channels_first(pixels(3, 9))


def test_files_agree_with_what_the_library_itself_reads(zoo: Path, cache: str, tmp_path: Path) -> None:
    theirs = datasets.load_dataset(str(zoo), split="train", cache_dir=str(tmp_path / "theirs"))
    ours = hub(path=str(zoo), cache=cache).train
    assert ours.images.tolist() == [np.asarray(image).transpose(2, 0, 1).tolist() for image in theirs["image"]]
    assert ours.labels.tolist() == list(theirs["label"])


def test_grey_or_resized_as_pillow_does_it(zoo: Path, cache: str) -> None:
    source = hub(path=str(zoo), mode="L", size=[4, 3], cache=cache)
    image = Image.fromarray(pixels(3, 9)[0]).convert("L").resize((3, 4), Image.Resampling.BILINEAR)
    assert source.test.images[0, 0].tolist() == np.asarray(image).tolist()
    assert source.train.images.shape == (6, 1, 4, 3)


def test_a_grey_set_stays_grey(tmp_path: Path, cache: str) -> None:
    for part in ("train", "test"):
        write(tmp_path / "grey" / f"{part}.parquet", [*pixels(3, mode="L")], labels(3))
    assert hub(path=str(tmp_path / "grey"), cache=cache).train.images[:, 0].tolist() == pixels(3, mode="L").tolist()


def test_decoded_once_and_needed_no_library_then(zoo: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub(path=str(zoo), cache=cache)
    monkeypatch.setattr(module, "write_images", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if the extra hub were not installed
    assert hub(path=str(zoo), cache=cache).train.images.equal(first.train.images)
    assert not list(Path(cache).glob("*/*/")), "no files of the library are left"


def test_what_is_asked_for_otherwise_is_decoded_anew(zoo: Path, cache: str) -> None:
    for options in (
        {},
        {"mode": "L"},
        {"size": 4},
        {"test_split": "train"},
        {"test_split": None, "test_fraction": 0.5},
    ):
        hub(path=str(zoo), **options, cache=cache)  # type: ignore[arg-type]
    assert len(list(Path(cache).glob("*/about.json"))) == 5


def test_splits_may_be_parts_and_sums(zoo: Path, cache: str) -> None:
    source = hub(path=str(zoo), train_split="train[:2]+test", test_split="train[5:]", cache=cache)
    assert source.train.labels.tolist() == [0, 1, 0, 1, 2]
    assert source.test.labels.tolist() == [2]


def test_without_a_test_split_a_stratified_share_is_held_out(zoo: Path, cache: str) -> None:
    source = hub(path=str(zoo), test_split=None, test_fraction=0.5, cache=cache)
    assert source.test.labels.bincount().tolist() == [1, 1, 1]
    everything = [*source.train.images.tolist(), *source.test.images.tolist()]
    assert sorted(everything) == sorted([*channels_first(pixels(3, 0)), *channels_first(pixels(3, 1))])


def test_a_single_file_is_the_training_split(zoo: Path, cache: str) -> None:
    file = zoo / "data" / "train-00000-of-00002.parquet"
    source = hub(path=str(file), test_split="train[2:]", train_split="train[:2]", cache=cache)
    assert (len(source.train), len(source.test)) == (2, 1)


def test_a_configuration_is_a_folder(zoo: Path, cache: str) -> None:
    for part in ("train", "test"):
        write(zoo / "cropped" / f"{part}-00000-of-00001.parquet", [*pixels(3, 5)], labels(3))
    assert len(hub(path=str(zoo), cache=cache).train) == 9
    assert len(hub(path=str(zoo), config="cropped", cache=cache).train) == 3


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
    assert source.test.images.tolist() == channels_first(pixels(3))


# Presets -----------------------------------------------------------------------------------------------------------

PRESETS = {
    "mnist": ("image", "label", "L", "test", 10),
    "fashion_mnist": ("image", "label", "L", "test", 10),
    "kmnist": ("image", "label", "L", "test", 10),
    "cifar10": ("img", "label", "RGB", "test", 10),
    "cifar100": ("img", "fine_label", "RGB", "test", 100),
    "svhn": ("image", "label", "RGB", "test", 10),
    "tiny_imagenet": ("image", "label", "RGB", "valid", 200),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset_reads_a_set_with_its_columns_and_refuses_other_counts(preset: str, tmp_path: Path, cache: str) -> None:
    image, label, mode, test_split, num_classes = PRESETS[preset]
    node = compose([f"dataset/source={preset}", f"dataset.source.path={tmp_path}", f"dataset.source.cache={cache}"])
    node = node.dataset.source
    feature = {"names": [str(c) for c in range(num_classes)], "_type": "ClassLabel"}
    for part in ("train", test_split):
        write(
            tmp_path / (node.config or "data") / f"{part}-0.parquet", [*pixels(3)], labels(3), (image, label), feature
        )
    with pytest.raises(ValueError, match=rf"^dataset.source {node.name.split('/')[1]}: num_train must be \d+, got 3"):
        build(node, "dataset.source")
    node.num_train = node.num_test = None
    source = build(node, "dataset.source")
    assert source.train.images.shape == (3, 1 if mode == "L" else 3, 6, 5)
    assert len(source.classes) == num_classes
