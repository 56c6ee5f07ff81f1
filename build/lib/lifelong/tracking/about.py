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
        return dict(_flat(self.config))


def _flat(node: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    items = [(f"{above}{key}", value) for key, value in node.items()]
    nested = [_flat(value, f"{key}.") if isinstance(value, dict) and value else [(key, value)] for key, value in items]
    return [item for inner in nested for item in inner]
