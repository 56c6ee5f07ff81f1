"""Arrays from .npz and .pt: images in any usual layout, inputs as they are; nothing in a file can run code."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lifelong.data.sources.arrays import arrays

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 3, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 4
GOOD: dict[str, Any] = {"images": IMAGES, "labels": LABELS}
WITH_TEST = GOOD | {"test_images": IMAGES[:5], "test_labels": LABELS[:5]}


def as_npz(path: Path, content: dict[str, Any]) -> str:
    np.savez(path / "mine.npz", **content)
    return str(path / "mine.npz")


def as_pt(path: Path, content: dict[str, Any]) -> str:
    torch.save({name: torch.as_tensor(value) for name, value in content.items()}, path / "mine.pt")
    return str(path / "mine.pt")


Save = Callable[[Path, dict[str, Any]], str]


@pytest.mark.parametrize("save", [as_npz, as_pt])
def test_parts_are_what_was_saved(tmp_path: Path, save: Save) -> None:
    source = arrays(save(tmp_path, WITH_TEST))
    assert (source.name, source.classes) == ("mine", ("0", "1", "2", "3"))
    assert source.train.inputs.tolist() == IMAGES.tolist()
    assert source.train.labels.tolist() == LABELS.tolist()
    assert source.test.inputs.tolist() == IMAGES[:5].tolist()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (IMAGES[:, 0], IMAGES[:, :1]),
        (IMAGES[:, :1], IMAGES[:, :1]),
        (IMAGES.transpose(0, 2, 3, 1), IMAGES),
        (IMAGES[:, :1].transpose(0, 2, 3, 1), IMAGES[:, :1]),
    ],
)
def test_every_usual_layout_becomes_channels_first(tmp_path: Path, given: np.ndarray, expected: np.ndarray) -> None:
    content = {"images": given, "labels": LABELS, "test_images": given, "test_labels": LABELS}
    assert arrays(as_npz(tmp_path, content)).train.inputs.tolist() == expected.tolist()


@pytest.mark.parametrize(("fraction", "held"), [(None, 1), (0.4, 2)])
def test_without_a_test_part_a_stratified_fifth_is_held_out(tmp_path: Path, fraction: float | None, held: int) -> None:
    source = arrays(as_npz(tmp_path, GOOD | {"labels": LABELS.astype(np.uint8)}), test_fraction=fraction)
    assert source.test.labels.bincount().tolist() == [held] * 4
    assert source.train.labels.bincount().tolist() == [5 - held] * 4


@pytest.mark.parametrize("save", [as_npz, as_pt])
@pytest.mark.parametrize(
    ("inputs", "kept", "given"),
    [
        (RNG.normal(size=(20, 7)), torch.float32, torch.float32),  # features
        (RNG.normal(size=(20, 3, 4)).astype(np.float32), torch.float32, torch.float32),
        (RNG.normal(size=(20, 7)).astype(np.float16), torch.float16, torch.float32),  # embeddings
        (RNG.integers(0, 900, (20, 5)).astype(np.int32), torch.int64, torch.int64),  # token ids
        (IMAGES, torch.uint8, torch.float32),
    ],
)
def test_inputs_are_kept_as_they_are_and_given_as_a_backbone_takes_them(
    tmp_path: Path, save: Save, inputs: np.ndarray, kept: torch.dtype, given: torch.dtype
) -> None:
    content = {"inputs": inputs, "labels": LABELS, "test_inputs": inputs[:5], "test_labels": LABELS[:5]}
    source = arrays(save(tmp_path, content))
    assert (source.train.inputs.dtype, source.train.shape) == (kept, inputs.shape[1:])
    assert source.test.inputs.equal(torch.as_tensor(inputs[:5]).to(kept))
    x = source.as_input(source.train.inputs)
    assert x.dtype == given
    expected = torch.as_tensor(inputs).double() / (255 if kept == torch.uint8 else 1)
    torch.testing.assert_close(x.double(), expected, atol=0, rtol=1e-6)  # to float32


def test_a_pt_file_is_mapped_and_stays_as_it_is_when_written_to(tmp_path: Path) -> None:
    path = as_pt(tmp_path, WITH_TEST)
    source = arrays(path)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or path in maps.read_text()
    source.train.inputs.zero_()
    assert arrays(path).train.inputs.tolist() == IMAGES.tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x_train": IMAGES, "y_train": LABELS}, "must hold images, labels and maybe .*, got x_train, y_train$"),
        (GOOD | {"test_images": IMAGES}, "must hold .*, got images, labels, test_images$"),
        (GOOD | {"images": IMAGES / 255}, r": images must be uint8, 0 to 255, got torch.float64 "),
        (GOOD | {"images": IMAGES[:, :2]}, r"with C = 1 or 3, got \(20, 2, 6, 5\)$"),
        (
            GOOD | {"images": RNG.integers(0, 9, (20, 3, 6, 3), dtype=np.uint8)},
            r"with C = 1 or 3, got \(20, 3, 6, 3\)$",
        ),
        (GOOD | {"labels": LABELS / 1}, ": labels must be an integer for each of the images, got torch.float64"),
        (GOOD | {"labels": LABELS[:-1]}, ": labels must be an integer for each of the images, got"),
        (GOOD | {"labels": LABELS - 1}, r"^dataset.source mine: train labels must be >= 0, got -1\.\.2$"),
        ({"inputs": IMAGES[:, 0, 0, 0], "labels": LABELS}, r": inputs must be floats or integers \(N, ...\), got"),
        ({"inputs": np.full((20, 2), np.nan), "labels": LABELS}, ": inputs must be finite, got NaN or infinity"),
        (GOOD | {"inputs": IMAGES}, "must hold images, labels and maybe .*, got images, inputs, labels$"),
        (WITH_TEST | {"test_images": IMAGES[:5, :, :4]}, "train and test part must be of one type and shape"),
    ],
)
@pytest.mark.parametrize("save", [as_npz, as_pt])
def test_other_content_is_refused(tmp_path: Path, save: Save, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        arrays(save(tmp_path, content))
    assert str(error.value).startswith("dataset.source")


class Evil:
    def __reduce__(self) -> Any:
        return pytest.fail, ("code of a file was run",)


def evil_npz(path: Path) -> str:
    return as_npz(path, GOOD | {"labels": np.array([Evil()] * 20, dtype=object)})


def evil_pt(path: Path) -> str:
    torch.save({"images": Evil(), "labels": Evil()}, path / "mine.pt")
    return str(path / "mine.pt")


def damaged_npz(path: Path, damage: Callable[[bytes], bytes]) -> str:
    file = Path(as_npz(path, GOOD))
    file.write_bytes(damage(file.read_bytes()))
    return str(file)


def one_array(path: Path) -> str:
    np.save(path / "mine.npy", IMAGES)
    return str((path / "mine.npy").rename(path / "mine.npz"))


CUT_SHORT = partial(damaged_npz, damage=lambda content: content[:-100])
BIT_FLIPPED = partial(damaged_npz, damage=lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])


@pytest.mark.parametrize("make", [evil_npz, evil_pt, CUT_SHORT, BIT_FLIPPED, one_array])
def test_a_file_that_is_not_named_arrays_is_refused_by_name(tmp_path: Path, make: Callable[[Path], str]) -> None:
    with pytest.raises(ValueError, match=r"^dataset.source.path: .*mine\.(npz|pt) cannot be read as named arrays"):
        arrays(make(tmp_path))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("", "an .npz or .pt file"), ("/", "an .npz or .pt file"), (__file__, "an .npz or .pt file"),
     ("/none/mine.npz", "a file that is there")],
)  # fmt: skip
def test_a_path_that_is_no_such_file_is_refused(path: str, allowed: str) -> None:
    with pytest.raises(ValueError, match=rf"^dataset.source.path must be {allowed}, got '{path}'$"):
        arrays(path)
