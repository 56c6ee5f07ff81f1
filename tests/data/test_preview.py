"""The picture of a stream shows a row per task and distinct classes first, with the words of the source."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lifelong.config.schema import ConfigError
from lifelong.data.examples import Examples
from lifelong.data.permuted import Permuted
from lifelong.data.preview import distinct_first, preview_figure
from lifelong.data.source import Source
from lifelong.data.split import Split

main = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "preview.py"))["main"]


def source() -> Source:
    """Every pixel of an image of class c is 10·c + 1."""
    labels = torch.arange(4).repeat(10)
    images = (10 * labels + 1).to(torch.uint8)[:, None, None, None].expand(-1, 1, 3, 3).contiguous()
    examples = Examples(images, labels)
    return Source("letters", examples, examples, ("a", "b", "c", "d$x"))


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def names(figure: Any) -> list[str]:
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def shown(figure: Any) -> list[int]:
    """Grey level of each image, in reading order."""
    return [int(np.asarray(image.get_array())[0, 0, 0]) for image in figure.axes[0].images]


@pytest.mark.parametrize(
    ("labels", "num", "classes"),
    [([1, 1, 0, 2, 0], 3, [0, 1, 2]), ([1, 1, 0, 2, 0], 5, [0, 1, 2, 0, 1]), ([5, 5], 4, [5, 5]), ([3], 1, [3])],
)
def test_samples_are_of_distinct_classes_as_far_as_there_are(labels: list[int], num: int, classes: list[int]) -> None:
    positions = distinct_first(torch.tensor(labels), num)
    assert torch.tensor(labels)[positions].tolist() == classes
    assert len(positions.unique()) == len(positions)


def test_rows_are_tasks_and_labels_are_columns_with_the_source_s_words() -> None:
    stream = Split(source(), 2, class_order=[3, 0, 2, 1], scenario="class", order=[1, 0])
    figure = preview_figure(stream, 3)
    assert shown(figure) == [21, 11, 21, 31, 1, 31]
    assert names(figure) == ["c-b\n18 images", "d_x-a\n18 images"]
    assert words(figure) == ["2 c", "3 b", "2 c", "0 d$x", "1 a", "0 d$x"]


def test_many_tasks_are_thinned_out_evenly_and_it_says_so() -> None:
    figure = preview_figure(Permuted(source(), 100), 1, max_rows=4)
    assert [name.split("\n")[0] for name in names(figure)] == ["perm0", "perm33", "perm66", "perm99"]
    assert figure.get_suptitle().replace("\n", " ") == "training images: 100 tasks, 4 shown"


def test_pictures_of_nothing_or_of_no_images_are_refused() -> None:
    for samples, rows in ((0, 5), (5, 1)):
        with pytest.raises(ValueError, match="num_samples must be >= 1 and max_rows >= 2"):
            preview_figure(Permuted(source(), 2), samples, rows)
    features = Examples(torch.rand(4, 7), torch.arange(4))
    with pytest.raises(ValueError, match=r"^the preview takes images alone, .* got float32 \(7,\) of source letters$"):
        preview_figure(Split(Source("letters", features, features, ("a", "b", "c", "d")), 2, val_fraction=0.0))


def test_the_script_draws_what_train_would_learn(tmp_path: Path) -> None:
    path = main(["dataset=split", "dataset/source=digits", "samples=2", f"out={tmp_path}/digits.png"])
    assert path.read_bytes().startswith(b"\x89PNG")


def test_the_script_has_no_picture_of_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", inputs=np.zeros((40, 8), np.float32), labels=np.arange(40) % 4)
    with pytest.raises(ConfigError, match=r"^the preview takes images alone"):
        main(
            ["dataset=split", "dataset/source=arrays", f"dataset.source.path={tmp_path}/f.npz", f"out={tmp_path}/p.png"]
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["samples=0"], "samples must be an integer >= 1, got '0'"),
        (["out=/none/a.png"], "out must be a .png file in a folder that exists, got '/none/a.png'"),
    ],
)
def test_the_script_refuses_what_train_would(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        main(arguments)
