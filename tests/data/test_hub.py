"""Sets in the hub's format: read from local parquet files without a network, and what is said when there is none."""

import builtins
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lifelong.config import build, compose
from lifelong.data.sources import hub as module
from lifelong.data.sources.hub import hub

NAMES = ["ape", "bee", "cow"]
CLASS_LABEL = {"names": NAMES, "_type": "ClassLabel"}


def pixels(num: int, seed: int = 0, mode: str = "RGB") -> np.ndarray:
    channels = () if mode == "L" else (3,)
    return np.random.default_rng(seed).integers(0, 256, (num, 6, 5, *channels), dtype=np.uint8)


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def write(
    path: Path,
    images: Sequence[np.ndarray | bytes | None],
    labels: Sequence[Any],
    columns: tuple[str, str] = ("image", "label"),
    label_feature: dict[str, Any] | None = CLASS_LABEL,
) -> None:
    """A parquet file as the hub has it: images as structs of bytes and path, features in the schema's metadata."""
    contents = [
        None if i is None else {"bytes": i if isinstance(i, bytes) else encoded(i), "path": None} for i in images
    ]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    arrays = [pa.array(contents, image_type), pa.array(labels)]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    if label_feature is not None:
        features = {columns[0]: {"_type": "Image"}, columns[1]: label_feature}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def labels(num: int) -> list[int]:
    return [i % 3 for i in range(num)]


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards of 6 training images and 3 to test on, as `hf download` leaves them."""
    data = tmp_path / "zoo" / "data"
    for shard in range(2):
        write(data / f"train-0000{shard}-of-00002.parquet", [*pixels(3, shard)], labels(3))
    write(data / "test-00000-of-00001.parquet", [*pixels(3, 9)], labels(3))
    (tmp_path / "zoo" / "README.md").write_text("---\nlicense: mit\n---\n# Zoo\n")
    return tmp_path / "zoo"


def channels_first(images: np.ndarray) -> list:
    return images.transpose(0, 3, 1, 2).tolist()


def test_parts_are_what_the_files_hold_in_their_order(folder: Path, cache: str) -> None:
    source = hub(path=str(folder), cache=cache)
    assert (source.name, source.classes) == ("zoo", ("ape", "bee", "cow"))
    assert source.train.images.tolist() == [*channels_first(pixels(3, 0)), *channels_first(pixels(3, 1))]
    assert source.train.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert source.test.images.tolist() == channels_first(pixels(3, 9))


def test_files_agree_with_what_the_library_itself_reads(folder: Path, cache: str, tmp_path: Path) -> None:
    theirs = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "theirs"))
    ours = hub(path=str(folder), cache=cache).train
    assert ours.images.tolist() == [np.asarray(image).transpose(2, 0, 1).tolist() for image in theirs["image"]]
    assert ours.labels.tolist() == list(theirs["label"])


def test_grey_or_resized_as_pillow_does_it(folder: Path, cache: str) -> None:
    source = hub(path=str(folder), mode="L", size=[4, 3], cache=cache)
    image = Image.fromarray(pixels(3, 9)[0]).convert("L").resize((3, 4), Image.Resampling.BILINEAR)
    assert source.test.images[0, 0].tolist() == np.asarray(image).tolist()
    assert source.train.images.shape == (6, 1, 4, 3)


def test_a_grey_set_stays_grey(tmp_path: Path, cache: str) -> None:
    for part in ("train", "test"):
        write(tmp_path / "grey" / f"{part}.parquet", [*pixels(3, mode="L")], labels(3))
    assert hub(path=str(tmp_path / "grey"), cache=cache).train.images[:, 0].tolist() == pixels(3, mode="L").tolist()


def test_decoded_once_and_needed_no_library_then(folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = hub(path=str(folder), cache=cache)
    monkeypatch.setattr(module, "write_images", lambda *_: pytest.fail("decoded again"))
    without_datasets(monkeypatch)
    assert hub(path=str(folder), cache=cache).train.images.equal(first.train.images)
    assert not list(Path(cache).glob("*/*/")), "no files of the library are left"


def test_what_is_asked_for_otherwise_is_decoded_anew(folder: Path, cache: str) -> None:
    for options in ({}, {"mode": "L"}, {"size": 4}, {"test_split": "train"}, {"test_split": None}):
        hub(path=str(folder), **options, cache=cache)  # type: ignore[arg-type]
    assert len(list(Path(cache).glob("*/about.json"))) == 5


def test_splits_may_be_parts_and_sums(folder: Path, cache: str) -> None:
    source = hub(path=str(folder), train_split="train[:2]+test", test_split="train[5:]", cache=cache)
    assert source.train.labels.tolist() == [0, 1, 0, 1, 2]
    assert source.test.labels.tolist() == [2]


def test_without_a_test_split_a_stratified_share_is_held_out(folder: Path, cache: str) -> None:
    source = hub(path=str(folder), test_split=None, test_fraction=0.5, cache=cache)
    assert source.test.labels.bincount().tolist() == [1, 1, 1]
    everything = [*source.train.images.tolist(), *source.test.images.tolist()]
    assert sorted(everything) == sorted([*channels_first(pixels(3, 0)), *channels_first(pixels(3, 1))])


def test_a_single_file_is_the_training_split(folder: Path, cache: str) -> None:
    file = folder / "data" / "train-00000-of-00002.parquet"
    source = hub(path=str(file), test_split="train[2:]", train_split="train[:2]", cache=cache)
    assert (len(source.train), len(source.test)) == (2, 1)


def test_a_configuration_is_a_folder(folder: Path, cache: str) -> None:
    for part in ("train", "test"):
        write(folder / "cropped" / f"{part}-00000-of-00001.parquet", [*pixels(3, 5)], labels(3))
    assert len(hub(path=str(folder), cache=cache).train) == 9
    assert len(hub(path=str(folder), config="cropped", cache=cache).train) == 3


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


# Refusals ----------------------------------------------------------------------------------------------------------


def refused(message: str, **options: Any) -> None:
    with pytest.raises(ValueError, match=message) as error:
        hub(**options)
    assert str(error.value).startswith("dataset.source")
    assert "\n" not in str(error.value)


def rewritten(folder: Path, images: Sequence[Any], values: Sequence[Any], feature: dict | None = CLASS_LABEL) -> None:
    write(folder / "data" / "test-00000-of-00001.parquet", images, values, label_feature=feature)


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
        ({"train_split": "train[:0]"}, "^dataset.source.train_split must hold images, got none"),
        (
            {"num_train": 60000},
            "^dataset.source zoo: num_train must be 60000, got 6; .* set dataset.source.num_train=null$",
        ),
        ({"num_test": 4}, "num_test must be 4, got 3"),
        ({"num_classes": 10}, "num_classes must be 10, got 3"),
    ],
)
def test_settings_that_do_not_fit_the_set_are_refused(
    folder: Path, cache: str, options: dict[str, Any], message: str
) -> None:
    refused(message, **({"path": str(folder), "cache": cache} | options))


def test_known_counts_that_are_right_pass(folder: Path, cache: str) -> None:
    hub(path=str(folder), num_train=6, num_test=3, num_classes=3, cache=cache)


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
    folder: Path, cache: str, images: list, values: list, message: str
) -> None:
    rewritten(folder, images, values)
    refused(message, path=str(folder), cache=cache)
    assert not list(Path(cache).glob("*/")), "nothing is kept of what was refused"


def test_a_file_cut_short_is_refused(folder: Path, cache: str) -> None:
    file = folder / "data" / "train-00001-of-00002.parquet"
    file.write_bytes(file.read_bytes()[:200])
    refused(r"^dataset.source.path: split 'train' of /.*/zoo cannot be read \(.*\)$", path=str(folder), cache=cache)


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
            r"^dataset.source.name 'a/b' cannot be loaded with config 'x', split 'train', revision None: Builder.*\['y'\]$",
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


def without_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "datasets":
            raise ImportError("No module named 'datasets'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.mark.parametrize("option", ["name", "path"])
def test_without_the_extra_it_says_what_to_install(
    folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    without_datasets(monkeypatch)
    refused(
        r"^dataset.source hub: the library datasets is not installed: pip install -e .\[hub\]$",
        **{option: str(folder)},
        cache=cache,
    )


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


def test_an_empty_file_is_refused(folder: Path, cache: str) -> None:
    rewritten(folder, [], pa.array([], pa.int64()))
    refused("^dataset.source.*(must hold images, got none in 'test'|no data)", path=str(folder), cache=cache)
