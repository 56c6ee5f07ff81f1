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
from lifelong.data.preview import as_picture, class_names, distinct_first, preview_figure
from lifelong.data.source import Source
from lifelong.data.split import Split
from lifelong.data.stream import TaskStream

main = runpy.run_path(str(Path(__file__).resolve().parents[2] / "scripts" / "preview.py"))["main"]


def source(channels: int = 1) -> Source:
    """Every pixel of an image of class c is 10·c + 1."""
    labels = torch.arange(4).repeat(10)
    images = (10 * labels + 1).to(torch.uint8)[:, None, None, None].expand(-1, channels, 3, 3).contiguous()
    examples = Examples(images, labels)
    return Source("letters", examples, examples, ("a", "b", "c", "d$x"))


def words(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


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
    assert words(figure) == [
        *["c-b\n18 images", "2 c", "3 b", "2 c"],
        *["d_x-a\n18 images", "0 d$x", "1 a", "0 d$x"],
    ]


def test_class_names_of_a_stream_on_all_classes_are_the_source_s() -> None:
    stream = Permuted(source(), 2)
    assert class_names(stream, stream.task(1)) == {0: "a", 1: "b", 2: "c", 3: "d$x"}


def test_many_tasks_are_thinned_out_evenly_and_it_says_so() -> None:
    figure = preview_figure(Permuted(source(), 100), 1, max_rows=4)
    assert [w.split("\n")[0] for w in words(figure)[::2]] == ["perm0", "perm33", "perm66", "perm99"]
    assert figure.texts[0].get_text().replace("\n", " ") == "training images: 100 tasks, 4 shown"


def test_the_picture_is_the_same_whether_images_are_made_before_or_as_asked_for() -> None:
    here, later = (Permuted(source(3), 3, resident_bytes=bound) for bound in (1e9, 0))
    assert shown(preview_figure(here)) == shown(preview_figure(later))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_images_of_any_number_of_channels_have_a_picture(channels: int) -> None:
    image = source(channels).train.inputs[1]
    assert as_picture(image).tolist() == np.full((3, 3, 3), 11).tolist()


def test_no_words_are_outside_the_picture_or_on_each_other(tmp_path: Path) -> None:
    long = tuple(f"a class of a very long name {i}" for i in range(4))
    stream: TaskStream = Split(Source("long", source().train, source().test, long), 4)
    figure = preview_figure(stream, 4, title="of a very long title " * 12)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [text.get_window_extent(renderer) for text in [*figure.texts, *figure.axes[0].texts]]
    for i, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert not any(box.overlaps(other) for other in boxes[:i])


@pytest.mark.parametrize(("samples", "rows"), [(0, 5), (5, 1)])
def test_pictures_of_nothing_are_refused(samples: int, rows: int) -> None:
    with pytest.raises(ValueError, match="num_samples must be >= 1 and max_rows >= 2"):
        preview_figure(Permuted(source(), 2), samples, rows)


def test_a_stream_of_no_images_has_no_picture() -> None:
    features = Examples(torch.rand(4, 7), torch.arange(4))
    with pytest.raises(ValueError, match=r"^the preview takes images alone, .* got float32 \(7,\) of source letters$"):
        preview_figure(Split(Source("letters", features, features, ("a", "b", "c", "d")), 2, val_fraction=0.0))


def test_the_script_draws_what_train_would_learn(tmp_path: Path) -> None:
    path = main(["dataset=split", "dataset/source=digits", "samples=2", f"out={tmp_path}/digits.png"])
    assert path.read_bytes().startswith(b"\x89PNG")


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
