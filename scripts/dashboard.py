"""Make the W&B workspace of a project, or bring it up to date: python scripts/dashboard.py --project lifelong

Needs the extra `dashboard` and an account (or a server of one's own). There is one view, of a fixed name: running this
again replaces it, and what was rearranged in it by hand.
"""

import argparse
import sys
from types import ModuleType
from typing import Any

NAME = "nw-lifelong-v"
"""W&B's internal name of the view, by which it is found again."""
TITLE = "Continual learning"


def sections(ws: ModuleType, wr: ModuleType) -> list[Any]:
    """What the workspace shows, from the measures of metrics.json and the curves of each run.

    λ is the summary's `strength`: wandb-workspaces would look for `method.strength` in a nested configuration.
    """

    def measure(key: str) -> Any:
        return wr.SummaryMetric(key)

    def column(metric: Any, title: str, **options: bool) -> Any:
        return wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=title, **options)

    points = [measure(key) for key in ("average_accuracy", "forgetting", "learning_accuracy")]
    coordinates = [
        column(measure("strength"), "λ", log=True),
        column(points[2], "learning accuracy"),
        column(points[1], "forgetting", inverted=True),
        column(points[0], "average accuracy"),
    ]
    matrices = [
        wr.WeavePanelSummaryTable(table_name="accuracy_matrix"),
        wr.MediaBrowser(title="accuracy matrix", media_keys=["accuracy_matrix_image"]),
    ]
    planes = [
        wr.ScatterPlot(title="forgetting against λ", x=measure("strength"), y=points[1], log_x=True),
        wr.ScatterPlot(title="average accuracy against λ", x=measure("strength"), y=points[0], log_x=True),
        wr.ScatterPlot(title="stability against plasticity", x=points[2], y=points[1]),
        wr.ParallelCoordinatesPlot(title="settings to measures", columns=coordinates),
    ]
    curves = [
        wr.LinePlot(title="validation accuracy per task", x="step", metric_regex="val/accuracy/.*"),
        wr.LinePlot(title="test accuracy per task", x="step", metric_regex="test/accuracy/.*"),
        wr.LinePlot(title="loss", x="step", y=["train/loss"]),
        wr.LinePlot(title="penalty", x="step", y=["train/penalty"], log_y=True),
        wr.LinePlot(title="‖∇penalty‖ / ‖∇task‖", x="step", y=["train/penalty_gradient_ratio"], log_y=True),
        wr.LinePlot(title="samples per second", x="step", y=["cost/samples_per_second"]),
    ]
    named = {"Accuracy matrix": matrices, "Strength, stability, plasticity": planes, "While learning": curves}
    return [ws.Section(name=name, panels=panels, is_open=True) for name, panels in named.items()]


def workspace(entity: str, project: str) -> Any:
    """The workspace, its runs grouped by method; nothing is sent."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    settings = ws.WorkspaceSettings(x_axis="step", max_runs=100)
    runs = ws.RunsetSettings(groupby=[ws.Metric("JobType")])
    made = ws.Workspace(
        entity=entity, project=project, name=TITLE, sections=sections(ws, wr), settings=settings, runset_settings=runs
    )
    made._internal_name = NAME
    return made


def save(made: Any) -> bool:
    """Whether the view is new to the server; else it replaces the one there.

    Raises:
        Exception: whatever W&B raises, e.g. without an account or if there is no such project.
    """
    import wandb_workspaces.workspaces as ws

    try:
        made._internal_id = ws.Workspace.from_url(made.url)._internal_id
    except ValueError as error:
        if not str(error).startswith("Workspace `"):
            raise
    new = not made._internal_id
    made.save()
    return new


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", default="lifelong")
    parser.add_argument("--entity", help="default: that of the account")
    given = parser.parse_args(arguments)
    try:
        import wandb

        entity = given.entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("the account has no default entity, --entity must name one")
        made = workspace(entity, given.project)
        new = save(made)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error}: pip install 'lifelong[dashboard]'")
    except Exception as error:
        sys.exit(f"error: no dashboard: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    print(f"{'made' if new else 'brought up to date'}: {made.url}")


if __name__ == "__main__":
    main()
