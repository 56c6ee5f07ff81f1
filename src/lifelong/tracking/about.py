"""What loggers are told of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lifelong.runs.identity import flattened


@dataclass(frozen=True)
class About:
    """A run, as loggers name it; `run_id` is the same in every retry, `config` the resolved configuration, nested."""

    folder: Path
    run_id: str
    title: str
    method: str
    config: dict[str, Any]

    @property
    def flat_config(self) -> dict[str, Any]:
        """The configuration with dotted keys."""
        return flattened(self.config)
