"""Whole runs in these tests are about data: they leave out the pictures, which take half of a tiny run's time."""

import pytest

from lifelong import result


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(result, "draw", lambda *_: None)
