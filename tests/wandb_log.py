"""Reads a .wandb file back with W&B's own reader, `wandb leet inspect`."""

import json
import subprocess
from pathlib import Path
from typing import Any

from wandb.util import get_core_path


def records(path: Path, kind: str) -> list[dict[str, Any]]:
    """All records of a kind, as far as the file goes."""
    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--run-file", str(path), "."]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [record[kind] for record in map(json.loads, lines) if record["type"] == kind]


def rows(path: Path) -> list[dict[str, Any]]:
    """What was logged, without W&B's own columns; {"matrix": {"path": …}} has the key matrix.path."""
    found = [record["item"] for record in records(path, "history")]
    return [{key: value for key, value in row.items() if not key.startswith("_")} for row in found]


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(path, "summary"):
        found |= record["update"]
    return found


def run_record(path: Path) -> dict[str, Any]:
    """Id, name, group, tags …, and the configuration as config → update."""
    return records(path, "run")[0]
