"""What loggers are told of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class About:
    """A run, as loggers name it.

    Attributes:
        folder: the run folder.
        run_id: the same in every retry.
        title: what it is, to be read by people.
        method: the method's name.
        config: the resolved configuration, nested and plain.
    """

    folder: Path
    run_id: str
    title: str
    method: str
    config: dict[str, Any]

    @property
    def flat_config(self) -> dict[str, Any]:
        """The configuration with dotted keys, {"method.strength": 1000.0, …}; lists stay whole."""
        return _flat(self.config)


def _flat(node: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{above}{key}.") if isinstance(value, dict) and value else {f"{above}{key}": value}
    return found
