"""Whole runs in these tests are about data: they leave out the pictures, which take half of a tiny run's time."""

import pytest

from lifelong import experiment


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "draw", lambda *_: None)
