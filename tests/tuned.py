"""A protocol tuned on the smallest data there is."""

from pathlib import Path

import pytest

import tune

SMALL = (
    "backbone.widths=[8]",
    "dataset.source.test_fraction=0.8",
    "trainer.max_epochs=1",
    "trainer=cpu",
    "num_threads=1",
    "log_every_n_steps=2",
)


def tuned(root: Path, *options: str, methods: str = "finetune,ewc,joint", seeds: str = "0,1") -> None:
    where = ["hsu_split_class", "--data", "digits", "--root", str(root), "--reach", "1"]
    tune.main([*where, "--methods", methods, "--seeds", seeds, *SMALL, *options])


@pytest.fixture(scope="session")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of its runs."""
    root = tmp_path_factory.mktemp("runs")
    tuned(root, "--run")
    return root
