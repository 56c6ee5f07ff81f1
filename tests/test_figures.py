"""Pictures are checked for what a reader needs of them: every label there, none on top of another, none cut off."""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text

from lifelong.experiment import result
from lifelong.plots.figures import COLOURS, Point, Turn, accuracy_curves_figure, accuracy_matrix_figure
from lifelong.runs.folder import RunFolder
from lifelong.runs.record import Record
from runs import run

TITLE = "split_cifar100 · ewc · strength 100 · seed 0"
LONG_TITLE = "; ".join(f"method.option{i}=value{i}" for i in range(20))
num_tasks_of_each_size = pytest.mark.parametrize("num_tasks", [1, 5, 20])
STEPS = 100


def names_of(num_tasks: int) -> list[str]:
    return [f"classes {5 * i}-{5 * i + 4}" for i in range(num_tasks)]


def matrix(num_tasks: int) -> torch.Tensor:
    return torch.rand(num_tasks, num_tasks, dtype=torch.float64)


def curves(num_tasks: int) -> tuple[list[Point], list[Turn]]:
    """Ten evaluations while learning each task, of the tasks met so far."""
    turns = [(name, i * STEPS, (i + 1) * STEPS) for i, name in enumerate(names_of(num_tasks))]
    points = [
        Point(step=step, task=task, accuracy=torch.rand(()).item())
        for i, (_, first, last) in enumerate(turns)
        for step in range(first + 10, last + 1, 10)
        for task in range(i + 1)
    ]
    return points, turns


@cache
def drawn(kind: str, num_tasks: int, title: str = TITLE) -> Figure:
    """A figure laid out and drawn once for all tests that look at it."""
    if kind == "matrix":
        figure = accuracy_matrix_figure(matrix(num_tasks), names_of(num_tasks), title)
    else:
        points, turns = curves(num_tasks)
        figure = accuracy_curves_figure(points, names_of(num_tasks), turns, title)
    figure.canvas.draw()
    return figure


def texts_of(labels: Sequence[Text]) -> list[str]:
    return [label.get_text() for label in labels]


def apart(labels: Sequence[Text]) -> bool:
    """No label touches another; slanted by 45°, their anchors are a line height, measured across the slant, apart."""
    if labels[0].get_rotation():
        anchors = [label.get_transform().transform(label.get_position())[0] for label in labels]
        line = labels[0].get_fontsize() / 72 * labels[0].figure.dpi * 2**0.5
        return all(b - a > line for a, b in pairwise(anchors))
    boxes = [label.get_window_extent() for label in labels]
    return not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def visible_texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]


both_kinds = pytest.mark.parametrize("kind", ["matrix", "curves"])


@both_kinds
@num_tasks_of_each_size
@pytest.mark.parametrize("title", [TITLE, LONG_TITLE], ids=["title", "long title"])
def test_no_text_is_cut_off_and_the_title_is_whole_and_on_top_of_nothing(kind: str, num_tasks: int, title: str) -> None:
    figure = drawn(kind, num_tasks, title)
    boxes = [(text.get_text(), text.get_window_extent()) for text in visible_texts(figure)]
    assert [text for text, box in boxes if figure.bbox.count_contains(box.corners()) < 4] == []
    (heading,) = figure.texts
    assert heading.get_text().split() == title.split()
    others = [text for text in visible_texts(figure) if text is not heading] + figure.axes
    assert heading.get_window_extent().count_overlaps([other.get_window_extent() for other in others]) == 0


@pytest.mark.parametrize(("num_tasks", "num_numbers"), [(1, 1), (5, 25), (12, 144), (20, 400), (26, 0)])
def test_matrix_figure_numbers_every_cell_up_to_25_tasks(num_tasks: int, num_numbers: int) -> None:
    R = matrix(num_tasks)
    numbers = accuracy_matrix_figure(R, names_of(num_tasks), TITLE).axes[0].texts
    assert len(numbers) == num_numbers
    for text in numbers:
        column, row = text.get_position()
        half_a_digit = 0.05 if num_tasks <= 12 else 0.5
        assert float(text.get_text()) == pytest.approx(100 * R[row, column].item(), abs=half_a_digit + 1e-9)


@num_tasks_of_each_size
def test_matrix_figure_names_rows_and_columns_and_no_label_touches_another(num_tasks: int) -> None:
    axes = drawn("matrix", num_tasks).axes[0]
    assert texts_of(axes.get_xticklabels()) == texts_of(axes.get_yticklabels()) == names_of(num_tasks)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("tested on", "after learning")
    assert all(apart(labels) for labels in (axes.texts, axes.get_yticklabels(), axes.get_xticklabels()))


def test_matrix_figure_numbers_stand_out_from_their_cell() -> None:
    """Contrast by WCAG 2 of at least 4.5, what it asks of text, at every accuracy."""

    def luminance(colour: Sequence[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    R = torch.linspace(0, 1, 144).reshape(12, 12)
    axes = accuracy_matrix_figure(R, names_of(12), TITLE).axes[0]
    for text in axes.texts:
        column, row = text.get_position()
        cell = luminance(axes.images[0].to_rgba(100 * R[row, column].item()))
        ink = {"black": 0.0, "white": 1.0}[text.get_color()]
        assert (max(cell, ink) + 0.05) / (min(cell, ink) + 0.05) >= 4.5


@pytest.mark.parametrize("shape", [(3, 3), (6, 5), (0, 5), (5,)])
def test_matrix_figure_refuses_a_matrix_that_does_not_fit_the_names(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"R must have shape \(1..T, T\) with T = 5 names"):
        accuracy_matrix_figure(torch.zeros(shape), names_of(5), TITLE)


@num_tasks_of_each_size
def test_curves_figure_draws_the_points_of_every_task_on_a_line_of_its_own(num_tasks: int) -> None:
    points, turns = curves(num_tasks)
    shuffled = [points[i] for i in torch.randperm(len(points))]
    axes = accuracy_curves_figure(shuffled, names_of(num_tasks), turns, TITLE).axes[0]
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    assert list(lines) == names_of(num_tasks)
    for task, line in enumerate(lines.values()):
        expected = [(p["step"], 100 * p["accuracy"]) for p in points if p["task"] == task]
        assert list(zip(*line.get_data(), strict=True)) == expected
    assert len({(line.get_color(), line.get_linestyle()) for line in lines.values()}) == num_tasks
    assert len({line.get_color() for line in lines.values()}) == min(num_tasks, len(COLOURS))


@num_tasks_of_each_size
def test_curves_figure_separates_and_names_the_tasks(num_tasks: int) -> None:
    axes = drawn("curves", num_tasks).axes[0]
    separators = [line.get_xdata()[0] for line in axes.lines if line.get_label().startswith("_")]
    assert separators == [i * STEPS for i in range(1, num_tasks)]
    top = axes.child_axes[0]
    assert texts_of(top.get_xticklabels()) == names_of(num_tasks)
    assert list(top.get_xticks()) == [(i + 0.5) * STEPS for i in range(num_tasks)]
    assert apart(top.get_xticklabels())


def test_figures_of_an_unfinished_stream_show_the_tasks_so_far() -> None:
    axes = accuracy_matrix_figure(matrix(5)[:2], names_of(5), TITLE).axes[0]
    assert (texts_of(axes.get_yticklabels()), len(axes.texts)) == (names_of(2), 10)
    points, turns = curves(2)
    axes = accuracy_curves_figure(points, names_of(5), turns, TITLE).axes[0]
    shown = (axes.child_axes[0].get_xticklabels(), axes.get_legend().get_texts())
    assert [texts_of(labels) for labels in shown] == [names_of(2)] * 2


@pytest.mark.usefixtures("pictures")
def test_figures_of_a_run_carry_its_title_and_no_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = Mock(wraps=accuracy_matrix_figure)
    monkeypatch.setattr("lifelong.experiment.result.accuracy_matrix_figure", draw)
    run(tmp_path, "method=ewc", "seed=3")
    assert [call.args[2] for call in draw.call_args_list] == ["ewc λ=1000 · rotated digits · seed 3"]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([0, 6, 12, 18], [("a", 0, 6), ("b", 6, 12), ("c", 12, 18)]),
        ([0, 6, 6, 18], [("a", 0, 6), ("c", 6, 18)]),
        ([0, 18, 18, 18], [("all tasks", 0, 18)]),
    ],
)
@pytest.mark.usefixtures("pictures")
def test_turns_keep_their_names_where_others_have_no_steps(
    ends: list[int], expected: list[Turn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = Mock(wraps=accuracy_curves_figure)
    monkeypatch.setattr("lifelong.experiment.result.accuracy_curves_figure", drawn)
    folder = RunFolder(tmp_path)
    folder.history.write_text('{"step": 18, "val/accuracy/a": 0.5}\n')
    result.draw(folder, ["a", "b", "c"], matrix(3), Record(boundaries=list(pairwise(ends))), TITLE)
    assert drawn.call_args.args[2] == expected


@pytest.mark.system
def test_figures_load_no_matplotlib_until_drawn_and_never_pyplot() -> None:
    program = """
import sys, torch
from lifelong.plots.figures import accuracy_matrix_figure
assert "matplotlib" not in sys.modules
accuracy_matrix_figure(torch.eye(2), ["a", "b"], "title")
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
