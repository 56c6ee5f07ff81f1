"""Whole runs in these tests are about data: they leave out the pictures, which take half of a tiny run's time."""

from pathlib import Path

import pytest

from lifelong.experiment import result


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "draw", lambda *_: None)


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A set in the hub's format."""
    from parquet_files import write_zoo  # needs the extra hub

    return write_zoo(tmp_path / "zoo")
