"""One thread per test process (two threads on two busy cores are slower) and no network."""

import os

os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the programs that tests start, too

from collections.abc import Iterator
from functools import cache

import pytest
import torch
from hypothesis import settings
from lightning.fabric.utilities import registry
from lightning.pytorch.utilities import rank_zero_only

from chromium import browser  # noqa: F401 - a fixture
from importance_models import path  # noqa: F401 - a fixture
from lifelong.experiment import result
from lifelong.experiment.result import draw
from tuned import tuning  # noqa: F401 - a fixture
from wandb_session import server, wandb_afresh  # noqa: F401 - fixtures

torch.set_num_threads(1)
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")
registry.entry_points = cache(registry.entry_points)  # each Trainer would read what all packages declare


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module", autouse=True)
def without_pictures() -> Iterator[None]:
    """Save half the time of a tiny run; a test that looks at them asks for `pictures`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "draw", lambda *_: None)
        yield


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "draw", draw)


@pytest.fixture(autouse=True)
def _first_rank() -> Iterator[None]:
    """A Trainer built as another rank makes Lightning say nothing for the rest of the process."""
    yield
    rank_zero_only.rank = 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):  # not `keywords`, which has the folders' names too
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, none found"))
