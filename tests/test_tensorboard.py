"""TensorBoard's event files, read back: what they hold is what the history says."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lifelong.tracking import About
from lifelong.tracking.loggers.tensorboard import EventFiles
from runs import run, run_killed
from wandb_session import history, points

event_accumulator = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra `tensorboard`"
)


def events(folder: Path) -> Any:
    """Of all files, as TensorBoard reads them."""
    read = event_accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance=dict.fromkeys(
        ("scalars", "images", "tensors", "compressedHistograms", "histograms"), 0))  # fmt: skip
    return read.Reload()


def curves(read: Any) -> dict[str, list[tuple[int, float]]]:
    ours = [tag for tag in read.Tags()["scalars"] if not tag.startswith(("cost/", "summary/"))]
    return {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in ours}


def test_event_file_has_the_rows_of_the_history_and_what_a_gallery_shows(tmp_path: Path) -> None:
    result = run(tmp_path, "logger=tensorboard")
    assert len(list((result.folder / "tensorboard").glob("events.out*"))) == 1
    read = events(result.folder)
    assert curves(read) == points(history(result))
    pictures = read.Images("accuracy_matrix")
    assert [picture.step for picture in pictures] == [6, 12]
    image = np.asarray(Image.open(BytesIO(pictures[-1].encoded_image_string)))
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 20
    histogram = read.Histograms("importance/log10/head.weight")
    assert [event.step for event in histogram] == [6, 12]
    assert sum(histogram[-1].histogram_value.bucket) == histogram[-1].histogram_value.num > 0
    (average,) = read.Scalars("summary/average_accuracy")
    assert average.value == pytest.approx(result.metrics["average_accuracy"], rel=1e-6)


def test_run_that_starts_over_has_its_own_rows_alone(tmp_path: Path) -> None:
    """The first one's were denser: what stays of them would show."""
    run(tmp_path, "logger=tensorboard", "log_every_n_steps=1")
    result = run(tmp_path, "logger=tensorboard", "rerun=true")
    assert curves(events(result.folder)) == points(history(result))


def test_killed_and_resumed_run_has_each_row_once(tmp_path: Path) -> None:
    """Killed two rows after its last checkpoint, which is of step 8."""
    run_killed(tmp_path, "logger=tensorboard", "checkpoint_steps=4", step=10)
    result = run(tmp_path, "logger=tensorboard", "checkpoint_steps=4")
    assert curves(events(result.folder)) == points(history(result))


def test_logger_begins_with_the_rows_of_the_history_each_once(tmp_path: Path) -> None:
    """Whether it logged them before, and more at the last one's step, or the run had another logger."""
    about = About(tmp_path, "ewc-0", "ewc", "ewc", {})
    rows = [{"step": step, "train/loss": 1 / step} for step in (10, 20, 30)]
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for _ in range(2):
        logger = EventFiles(about)
        logger.log_metrics({"val/accuracy/rot0": 0.5}, 30)
        logger.close("failed")
    logger = EventFiles(about)
    logger.log_metrics({"train/loss": 1 / 40}, 40)
    logger.close("success")
    assert curves(events(tmp_path)) == points([*rows, {"step": 40, "train/loss": 1 / 40}])
    assert len(list((tmp_path / "tensorboard").glob("events.out*"))) == 1


def test_run_that_is_resumed_with_another_logger_has_all_its_rows(tmp_path: Path) -> None:
    run_killed(tmp_path, "checkpoint_steps=4", step=10)
    result = run(tmp_path, "logger=tensorboard", "checkpoint_steps=4")
    assert curves(events(result.folder)) == points(history(result))
