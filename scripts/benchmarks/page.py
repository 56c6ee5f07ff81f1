"""docs/performance.json keeps what each section measured last, and docs/performance.md shows it."""

import json
from pathlib import Path
from typing import Any

from benchmarks.table import Table

INTRODUCTION = """\
# Performance

Written by `scripts/benchmark.py --save docs`; nothing here was typed by hand. Each section was measured in one process,
and what it compares ran in turn. Times move with the machine; the ratios are what to compare.
"""
TITLES = {
    "stream": "Whole streams against a floor in plain PyTorch",
    "methods": "What each method costs",
    "device": "What each method costs on a device",
    "growth": "A hundred tasks",
    "importance": "Importance against loops over single samples",
    "startup": "Start-up",
}
PICTURES = {"growth": "![Cost against the number of tasks](growth.png)"}


def save(folder: Path, section: str, table: Table, ran_on: dict[str, Any]) -> None:
    """Put what a section measured in the place of what it had measured before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "performance.json"
    measured: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    measured[section] = {"ran_on": ran_on, **table.to_json()}
    path.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    (folder / "performance.md").write_text(page(measured))


def page(measured: dict[str, Any]) -> str:
    parts = [INTRODUCTION]
    for section, title in TITLES.items():
        if section not in measured:
            continue
        found = measured[section]
        facts = found["ran_on"]
        ran_on = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "command")
        parts += [f"## {title}\n", Table.from_json(found).markdown(), f"\n`{facts['command']}`, on {ran_on}.\n"]
        if section in PICTURES:
            parts.append(PICTURES[section] + "\n")
    return "\n".join(parts)
