"""TensorBoard: event files in the run folder."""

from lightning.pytorch.loggers import TensorBoardLogger

from lifelong.tracking.about import About
from lifelong.tracking.gallery import Gallery, Histogram, Matrix, picture, tested
from lifelong.tracking.history import Row, numbers, read_history


class EventFiles(TensorBoardLogger, Gallery):
    """Lightning's TensorBoardLogger on the stream's own step axis: one event file, however many Trainers come and go.

    A resumed run begins anew, with its history, which has no costs, pictures and histograms.

    Raises:
        ModuleNotFoundError: neither tensorboard nor tensorboardX is installed.
    """

    def __init__(self, about: About) -> None:
        for events in (about.folder / "tensorboard").glob("events.out*"):
            events.unlink()
        # purge_step: a TensorBoard that is running forgets them, too
        super().__init__(about.folder, name="", version="tensorboard", default_hp_metric=False, purge_step=0)
        self.about = about
        for row in read_history(about.folder / "history.jsonl"):
            self.log_metrics(numbers(row), row["step"])

    def log_task(self, row: Row, step: int, matrix: Matrix, importance: dict[str, Histogram]) -> None:
        self.log_metrics(dict(row), step)
        image = picture(matrix, tested(row), self.about.title)
        self.experiment.add_image("accuracy_matrix", image, step, dataformats="HWC")
        for name, (counts, edges) in importance.items():
            centres = (edges[1:] + edges[:-1]) / 2  # all that is known here of what the sums are over
            facts = (edges[0], edges[-1], counts.sum(), counts @ centres, counts @ centres**2)
            bins = (edges[1:].tolist(), counts.tolist())
            self.experiment.add_histogram_raw(f"importance/log10/{name}", *map(float, facts), *bins, step)

    def summarise(self, metrics: Row) -> None:
        self.log_hyperparams(self.about.flat_config, {f"summary/{k}": v for k, v in numbers(metrics).items()})

    def finalize(self, status: str) -> None:
        """A Trainer is done, the stream is not: the file stays open."""
        self.experiment.flush()

    def close(self, status: str) -> None:
        super().finalize(status)
