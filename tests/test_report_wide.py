"""A report of more methods than one panel can show apart."""

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from lifelong.plots.report.page import write_report
from lifelong.plots.report.plots import MANY, PALE, plane_figure, strength_figure
from lifelong.plots.report.runs import read_runs
from run_folders import finished

METHODS = (
    "er memory=uniform", "ewc", "ewc_dr", "ewcpp", "kfac_ewc", "l2", "lwf", "mas", "online_ewc", "rwalk", "scp", "si",
)  # fmt: skip


def curves(axes: Axes) -> tuple[list[Line2D], list[Line2D]]:
    """The panel's lines over three strengths: those with a look of their own, and the pale ones."""
    found = [line for line in axes.lines if len(line.get_xdata()) == 3]
    pale = [line for line in found if line.get_color() == PALE["color"]]
    return [line for line in found if line not in pale], pale


@pytest.mark.system  # composes and writes 72 run folders
def test_wide_folder_has_a_page_whose_panels_show_at_most_eight_coloured_lines(tmp_path: Path) -> None:
    """The strength's panels colour the most accurate and say how many are pale; the plane has a panel for each."""
    for k, method in enumerate(METHODS):
        for strength in (1, 10, 100):
            for seed in (0, 1):
                overrides = [*f"method={method}".split(), f"method.strength={strength}", f"seed={seed}"]
                finished(tmp_path, *overrides, learned=0.9 - 0.02 * k + 0.01 * seed, forgets=0.1 / strength)
    page = write_report(tmp_path).read_text()
    assert "72 of 72 runs finished" in page
    runs = read_runs(tmp_path)
    strength, plane = strength_figure(runs), plane_figure(runs)
    assert strength is not None
    assert plane is not None
    for axes in (axes for axes in strength.axes if axes.axison):
        own, pale = curves(axes)
        assert (len(own), len(pale)) == (MANY, len(METHODS) - MANY)
        assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in own}) == MANY
    names = [text.get_text() for text in strength.legends[0].get_texts()]
    assert [name.split()[0] for name in names] == [method.split()[0] for method in METHODS[:MANY]] + ["4"]
    assert names[-1] == "4 others, less accurate"
    assert sum(axes.axison for axes in plane.axes) == len(METHODS)
