"""Make the W&B workspace of a project, or bring it up to date: python scripts/dashboard.py --project lifelong

Needs the extra `dashboard` and an account (or a server of one's own). There is one view, of a fixed name: running this
again replaces it, and what was rearranged in it by hand.
"""

import argparse
import sys
from functools import partial
from types import ModuleType
from typing import Any

NAME = "nw-lifelong-v"
"""W&B's internal name of the view, by which it is found again."""
TITLE = "Continual learning"


def sections(ws: ModuleType, wr: ModuleType) -> list[Any]:
    """What the workspace shows, from the measures of metrics.json and the curves of each run.

    λ is the summary's `strength`: wandb-workspaces would look for `method.strength` in a nested configuration.
    """
    keys = ("strength", "learning_accuracy", "forgetting", "average_accuracy")
    strength, learning, forgetting, average = (wr.SummaryMetric(key) for key in keys)
    line = partial(wr.LinePlot, x="step")
    panels = {
        "Accuracy matrix": [
            wr.WeavePanelSummaryTable(table_name="accuracy_matrix"),
            wr.MediaBrowser(title="accuracy matrix", media_keys=["accuracy_matrix_image"]),
        ],
        "Strength, stability, plasticity": [
            wr.ScatterPlot(title="forgetting against λ", x=strength, y=forgetting, log_x=True),
            wr.ScatterPlot(title="average accuracy against λ", x=strength, y=average, log_x=True),
            wr.ScatterPlot(title="stability against plasticity", x=learning, y=forgetting),
        ],
        "While learning": [
            line(title="validation accuracy per task", metric_regex="val/accuracy/.*"),
            line(title="test accuracy per task", metric_regex="test/accuracy/.*"),
            line(title="loss", y=["train/loss"]),
            line(title="penalty", y=["train/penalty"], log_y=True),
            line(title="‖∇penalty‖ / ‖∇task‖", y=["train/penalty_gradient_ratio"], log_y=True),
            line(title="samples per second", y=["cost/samples_per_second"]),
        ],
    }
    return [ws.Section(name=name, panels=shown, is_open=True) for name, shown in panels.items()]


def workspace(entity: str, project: str) -> Any:
    """The workspace, its runs grouped by method; nothing is sent."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    made = ws.Workspace(
        entity=entity, project=project, name=TITLE, sections=sections(ws, wr),
        settings=ws.WorkspaceSettings(x_axis="step", max_runs=100),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("JobType")]),
    )  # fmt: skip
    made._internal_name = NAME
    return made


def save(made: Any) -> bool:
    """Whether the view is new to the server; else it replaces the one there. Raises whatever W&B raises."""
    try:
        made._internal_id = type(made).from_url(made.url)._internal_id
    except ValueError as error:
        if not str(error).startswith("Workspace `"):  # … not found
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
