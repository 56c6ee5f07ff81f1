"""docs/performance.md: what each section measured last."""

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
    "importance": "Importance against a loop over single samples",
    "startup": "Start-up",
    "stacked": "Sweeps in one process",
}


def save(folder: Path, section: str, table: Table, ran_on: dict[str, Any]) -> None:
    """Put what a section measured in the place of what it had measured before."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "performance.md"
    _, *parts = path.read_text().split("\n## ") if path.exists() else [""]
    found = dict(part.split("\n", 1) for part in parts)
    machine = ", ".join(f"{key} {value}" for key, value in ran_on.items() if key != "command")
    found[TITLES[section]] = f"\n{table.markdown()}\n\n`{ran_on['command']}`, on {machine}.\n"
    sections = [f"## {title}\n{found[title]}" for title in TITLES.values() if title in found]
    path.write_text("\n".join([INTRODUCTION, *sections]))
