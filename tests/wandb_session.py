"""W&B in this process: offline, or against a server on 127.0.0.1, and nothing of it left behind."""

from collections.abc import Iterator

import pytest

from wandb_server import KEY, Server, wandb_server

SHORT = ("logger=wandb", "logger.tags=[tiny]", "logger.init_timeout=3", "logger.finish_timeout=3")
"""How long a run waits for a server that does not answer, in seconds."""


@pytest.fixture
def wandb_afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B keeps its settings for a process; and so do we that it cannot be used."""
    monkeypatch.setattr("lifelong.tracking.loggers.wandb._unusable", False)
    import wandb

    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, wandb_afresh: None) -> Iterator[Server]:
    """Runs of this process are online, at this server."""
    import wandb

    wandb.teardown()
    with wandb_server() as told:
        monkeypatch.setenv("WANDB_MODE", "online")
        monkeypatch.setenv("WANDB_BASE_URL", told.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield told
