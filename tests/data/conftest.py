"""Where the tests of data keep theirs."""

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A set in the hub's format."""
    from parquet_files import write_zoo  # needs the extra hub

    return write_zoo(tmp_path / "zoo")
