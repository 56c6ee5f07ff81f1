"""Folders of images: labels by folder, order by name, one mode and size; decoded once and checked ever after."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from lifelong.data.source import Source
from lifelong.data.sources import cache as module
from lifelong.data.sources.image_folder import image_folder


def draw(path: Path, seed: int = 0, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> np.ndarray:
    """An image file of noise, size = (H, W); returns what it holds, (C, H, W)."""
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, *channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes cat and dog, five images each, in class order the seeds 0..9."""
    for i in range(10):
        draw(tmp_path / "pets" / ("cat", "dog")[i // 5] / f"{i}.png", i)
    return tmp_path / "pets"


def with_parts(tmp_path: Path) -> Path:
    for i, name in enumerate(["train/b/1.png", "train/a/2.png", "train/a/1.png", "test/b/x.png", "test/a/y.png"]):
        draw(tmp_path / "parts" / name, i)
    return tmp_path / "parts"


def test_labels_are_the_sorted_folders_and_images_sorted_by_path(tmp_path: Path, cache: str) -> None:
    source = image_folder(str(with_parts(tmp_path)), cache=cache)
    assert (source.name, source.classes) == ("parts", ("a", "b"))
    assert source.train.labels.tolist() == [0, 0, 1]
    expected = [draw(tmp_path / "x.png", seed).tolist() for seed in (2, 1, 0)]
    assert source.train.inputs.tolist() == expected
    assert source.test.labels.tolist() == [0, 1]


def test_without_a_test_folder_a_stratified_share_is_held_out(folder: Path, cache: str) -> None:
    source = image_folder(str(folder), cache=cache)
    assert source.train.labels.bincount().tolist() == [4, 4]
    together = [*source.train.inputs.tolist(), *source.test.inputs.tolist()]
    assert len(together) == 10
    assert all(draw(folder.parent / "x.png", i).tolist() in together for i in range(10))


@pytest.mark.parametrize(
    ("names", "classes"), [(("train", "test"), ("test", "train")), (("10", "9", "1"), ("1", "9", "10"))]
)
def test_classes_are_sorted_by_name_or_as_numbers_whatever_they_are_called(
    tmp_path: Path, cache: str, names: tuple[str, ...], classes: tuple[str, ...]
) -> None:
    for name in names:
        for i in range(5):
            draw(tmp_path / "named" / name / f"{i}.png", i)
    assert image_folder(str(tmp_path / "named"), cache=cache).classes == classes


@pytest.mark.parametrize("beside", ["val", "."])
def test_a_train_folder_without_a_test_folder_is_no_class(tmp_path: Path, cache: str, beside: str) -> None:
    for i in range(5):
        for part in ("train", beside):
            draw(tmp_path / "parts" / part / "a" / f"{i}.png", i)
    with pytest.raises(
        ValueError, match=r"path must hold train/<class> and test/<class>, or <class> alone, got .*train"
    ):
        image_folder(str(tmp_path / "parts"), cache=cache)


def test_other_and_hidden_files_are_left_out_and_deeper_folders_are_read(folder: Path, cache: str) -> None:
    (folder / "cat" / "notes.txt").write_text("no image")
    (folder / "cat" / ".thumb.png").write_text("no image")
    (folder / "README.md").write_text("no class")
    (folder / ".git").mkdir()
    for i in range(5):
        draw(folder / "fox" / "images" / f"{i}.JPG", i)
    source = image_folder(str(folder), cache=cache)
    assert source.classes == ("cat", "dog", "fox")
    assert len(source.train) + len(source.test) == 15


@pytest.mark.parametrize(
    ("mode", "size", "shape"),
    [("L", 8, (1, 8, 8)), ("RGB", [8, 4], (3, 8, 4)), (None, 3, (3, 3, 3)), ("L", None, (1, 6, 5))],
)
def test_images_are_brought_to_mode_and_size_as_pillow_does_it(
    folder: Path, cache: str, mode: str | None, size: int | list[int] | None, shape: tuple[int, ...]
) -> None:
    source = image_folder(str(folder), mode, size, cache=cache)
    assert source.test.inputs.shape == (2, *shape)
    with Image.open(folder / "cat" / "0.png") as image:
        expected = image.convert(mode or "RGB").resize(shape[:0:-1], Image.Resampling.BILINEAR)
    pixels = np.asarray(expected).reshape(*shape[1:], shape[0]).transpose(2, 0, 1).tolist()
    assert pixels in [*source.train.inputs.tolist(), *source.test.inputs.tolist()]


def test_photographs_are_turned_upright(tmp_path: Path, cache: str) -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:, 0] = 255  # a bar on the left, stored for a camera held sideways
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 270° counter-clockwise
    for i in range(5):
        (tmp_path / "photos" / "a").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / "a" / f"{i}.png", exif=exif)
    image = image_folder(str(tmp_path / "photos"), cache=cache).test.inputs[0, 0]
    assert image.tolist() == np.rot90(pixels[..., 0], -1).tolist()


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("P", "its mode is P: set dataset.source.mode to L or RGB"),
        ("RGBA", "its mode is RGBA: set dataset.source.mode to L or RGB"),
        ("I;16", "it has more than 8 bits per channel, mode I;16"),
    ],
)
def test_modes_neither_grey_nor_colour_are_refused(tmp_path: Path, cache: str, mode: str, message: str) -> None:
    for i in range(5):
        path = tmp_path / "other" / "a" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new(mode, (3, 3), 1).save(path)
    with pytest.raises(ValueError, match=rf"^dataset.source: /.*/a/\d.png cannot be used \({message}\)$"):
        image_folder(str(tmp_path / "other"), cache=cache)
    if mode != "I;16":
        assert image_folder(str(tmp_path / "other"), "RGB", cache=cache).test.inputs.shape == (1, 3, 3, 3)


@pytest.mark.parametrize("length", [0, 5, 90])
def test_an_unreadable_image_is_named(folder: Path, cache: str, length: int) -> None:
    file = folder / "dog" / "7.png"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"^dataset.source: /.*/pets/dog/7.png cannot be used \(.*\)$"):
        image_folder(str(folder), cache=cache)
    assert not list(Path(cache).glob("*/")), "nothing is kept of what was refused"


def test_images_that_differ_in_size_or_mode_say_what_to_set(folder: Path, cache: str) -> None:
    draw(folder / "dog" / "9.png", size=(9, 9))
    with pytest.raises(ValueError, match=r"^dataset.source.size must be set .*9.png is \(3, 9, 9\)"):
        image_folder(str(folder), test_fraction=0.4, cache=cache)
    draw(folder / "dog" / "9.png", mode="L")
    with pytest.raises(ValueError, match=r"^dataset.source.mode must be set .*9.png is \(1, 6, 5\)"):
        image_folder(str(folder), test_fraction=0.4, cache=cache)


def test_folders_that_are_none_are_refused(tmp_path: Path, folder: Path, cache: str) -> None:
    with pytest.raises(ValueError, match=r"^dataset.source.path must be a folder, got '/none'$"):
        image_folder("/none")
    with pytest.raises(ValueError, match=r"^dataset.source.path must hold a folder per class, got none in"):
        image_folder(str(folder / "cat"))
    (folder / "owl").mkdir()
    with pytest.raises(ValueError, match=r"^dataset.source.path: .*/owl must hold images \(.bmp, .*\), got none$"):
        image_folder(str(folder), cache=cache)
    parts = with_parts(tmp_path)
    with pytest.raises(ValueError, match=r"^dataset.source.test_fraction must be null beside a test folder, got 0.3$"):
        image_folder(str(parts), test_fraction=0.3)
    draw(parts / "test" / "c" / "1.png")
    with pytest.raises(ValueError, match=r"test must hold the classes of train, got also 'c'$"):
        image_folder(str(parts), cache=cache)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "CMYK"}, "dataset.source.mode must be L, RGB or null, got 'CMYK'"),
        ({"size": 0}, "dataset.source.size must be an integer >= 1, \\[height, width\\] or null, got 0"),
        ({"size": [3, 4, 5]}, "dataset.source.size must be"),
        ({"test_fraction": 0.01}, "dataset.source.test_fraction must leave both parts examples of 10, got 0.01"),
    ],
)
def test_settings_not_allowed_are_refused(folder: Path, cache: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        image_folder(str(folder), **options, cache=cache)


def test_the_cache_is_where_the_environment_says(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIFELONG_CACHE", str(tmp_path / "elsewhere"))
    image_folder(str(folder))
    assert len(list((tmp_path / "elsewhere").glob("pets-*.pt"))) == 1


def test_images_are_decoded_once_and_when_a_file_changes(
    folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = image_folder(str(folder), test_fraction=0.4, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(module, "decoded", lambda *_: pytest.fail("decoded again"))
        again = image_folder(str(folder), test_fraction=0.4, cache=cache)
    assert again.train.inputs.equal(first.train.inputs)
    assert again.classes == first.classes
    draw(folder / "cat" / "0.png", seed=77)
    os.utime(folder / "cat" / "0.png", ns=(1, 1))
    assert not image_folder(str(folder), test_fraction=0.4, cache=cache).train.inputs.equal(first.train.inputs)


def test_a_cache_that_is_cut_short_is_made_again(folder: Path, cache: str) -> None:
    first = image_folder(str(folder), cache=cache)
    (path,) = Path(cache).glob("*.pt")
    content = path.read_bytes()
    path.unlink()  # the memory map of the first keeps what it was
    path.write_bytes(content[:-7])
    again = image_folder(str(folder), cache=cache)
    assert again.train.inputs.equal(first.train.inputs)
    assert again.test.labels.equal(first.test.labels)


def test_images_are_mapped_and_the_file_is_safe_from_writing(folder: Path, cache: str) -> None:
    first = image_folder(str(folder), cache=cache)
    before = first.train.inputs.clone()
    (file,) = Path(cache).glob("*.pt")
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(file) in maps.read_text()
    first.train.inputs.zero_()
    assert image_folder(str(folder), cache=cache).train.inputs.equal(before)


def test_process_killed_while_decoding_leaves_nothing(
    folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = os.fork()
    if child == 0:
        monkeypatch.setattr("torch.save", lambda *_: os._exit(9))
        image_folder(str(folder), cache=cache)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert list(Path(cache).glob("*.tmp/train")), "it was killed on its way"
    assert len(image_folder(str(folder), cache=cache).train) == 8
    assert not list(Path(cache).glob("*.tmp"))


def test_a_cache_that_is_no_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"^dataset.source.cache: '/.*/0.png/cache/pets-.*' cannot be written"):
        image_folder(str(folder), cache=str(folder / "cat" / "0.png" / "cache"))


def test_jobs_that_start_together_decode_once(folder: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, written, together = module.decoded, [], threading.Barrier(3)

    def noted(images: Any, pixel_format: Any, path: Path) -> Tensor:
        written.append(path.name)
        return real(images, pixel_format, path)

    def job(_: int) -> Source:
        together.wait()
        return image_folder(str(folder), cache=cache)

    monkeypatch.setattr(module, "decoded", noted)
    with ThreadPoolExecutor(3) as pool:
        sources = list(pool.map(job, range(3)))
    assert sorted(written) == ["test", "train"]
    assert all(source.train.inputs.equal(sources[0].train.inputs) for source in sources)
