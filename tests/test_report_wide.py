"""A report of more methods than one panel can show apart."""

from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from lifelong.plots.report.page import write_report
from lifelong.plots.report.plots import MANY, plane_figure, strength_figure
from lifelong.plots.report.runs import read_runs
from run_folders import finished

METHODS = (
    "er memory=uniform", "ewc", "ewc_dr", "ewcpp", "kfac_ewc", "l2", "lwf", "mas", "online_ewc", "rwalk", "scp", "si",
)  # fmt: skip


def coloured(axes: Axes) -> set[str]:
    """The colours of the panel's lines that are no grey."""
    return {to_hex(line.get_color()) for line in axes.lines if len(set(to_rgb(line.get_color()))) > 1}


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
    panels = [axes for axes in strength.axes if axes.axison]
    assert [len(coloured(axes)) for axes in panels] == [MANY] * len(panels)
    names = [text.get_text() for text in strength.legends[0].get_texts()]
    assert [name.split()[0] for name in names] == [method.split()[0] for method in METHODS[:MANY]] + ["4"]
    assert names[-1] == "4 others, less accurate"
    panels = [axes for axes in plane.axes if axes.axison]
    assert len(panels) == len(METHODS)
    assert all(len(coloured(axes)) <= MANY for axes in panels)
