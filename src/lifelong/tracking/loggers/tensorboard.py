"""TensorBoard: event files in the run folder."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger

from lifelong.tracking.about import About
from lifelong.tracking.gallery import Gallery, Histogram, Shown
from lifelong.tracking.history import numbers, read_history


class EventFiles(TensorBoardLogger, Gallery):
    """Lightning's TensorBoardLogger on the stream's own step axis: one event file, however many Trainers come and go.

    What a resumed run had written after its checkpoint is purged.

    Raises:
        ModuleNotFoundError: neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, about: About) -> None:
        steps = [row["step"] for row in read_history(about.folder / "history.jsonl")]
        purge = max(steps) + 1 if steps else None
        super().__init__(about.folder, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)
        self.about = about

    def log_task(self, row: Mapping[str, float], step: int, shown: Shown) -> None:
        self.log_metrics(dict(row), step)
        self.experiment.add_image("accuracy_matrix", shown.picture(), step, dataformats="HWC")
        self.experiment.add_text("accuracy_matrix", _markdown(shown), step)
        for name, histogram in shown.importance.items():
            self.experiment.add_histogram_raw(f"importance/log10/{name}", **_raw(histogram), global_step=step)

    def summarise(self, metrics: Mapping[str, Any]) -> None:
        self.log_hyperparams(self.about.flat_config, {f"summary/{k}": v for k, v in numbers(metrics).items()})

    def finalize(self, status: str) -> None:
        """A Trainer is done, the stream is not: the file stays open."""
        self.experiment.flush()

    def close(self, success: bool) -> None:
        super().finalize("success" if success else "failed")


def _markdown(shown: Shown) -> str:
    lines = [["after learning", *shown.names], ["---"] * (len(shown.names) + 1)]
    lines += [[shown.names[i], *(f"{100 * v:.1f}" for v in row)] for i, row in enumerate(shown.matrix)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _raw(histogram: Histogram) -> dict[str, Any]:
    """What TensorBoard keeps of a histogram; sums are of the bins' centres, which is all that is known here."""
    counts, edges = histogram
    centres = (edges[1:] + edges[:-1]) / 2
    return {
        "min": float(edges[0]), "max": float(edges[-1]), "num": int(counts.sum()),
        "sum": float((counts * centres).sum()), "sum_squares": float((counts * centres**2).sum()),
        "bucket_limits": edges[1:].tolist(), "bucket_counts": counts.tolist(),
    }  # fmt: skip
