"""Parameters of a test that are many: a few of them for `make test`, the others for `make test-system`."""

from collections.abc import Container, Iterable
from typing import Any

import pytest


def grid(cases: Iterable[Any], at_once: Container[Any]) -> list[Any]:
    """All cases, those that are not `at_once` marked as system tests; a tuple holds one value for each argument."""
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=() if case in at_once else pytest.mark.system
        )
        for case in cases
    ]
