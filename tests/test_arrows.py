"""Who may import whom (the house's plan): read from the source, so that a late import counts too."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lifelong"
MODULES = sorted(PACKAGE.rglob("*.py"))

ONLY_IN = {
    "hydra": {"config", "experiment", "launch"},
    "omegaconf": {"config", "experiment", "launch", "plots", "runs", "stacked", "training"},
    "wandb": {"tracking"},
}
"""Rooms that may import these; train.py stands outside the package."""
ROOMS: dict[str, set[str]] = {  # room → rooms it may import besides itself
    "analysis": {"data", "models", "runs"},
    "config": set(),
    "data": {"distributed"},
    "distributed": set(),
    "experiment": {"analysis", "config", "data", "distributed", "launch", "memory", "methods", "metrics", "models",
                   "plots", "runs", "tracking", "training"},
    "importance": {"distributed"},
    "launch": {"distributed", "runs"},
    "memory": {"data", "distributed", "importance"},
    "methods": {"data", "distributed", "importance", "memory"},
    "metrics": set(),
    "models": {"data", "distributed"},
    "plots": {"config", "data", "methods", "metrics", "models", "runs"},
    "runs": {"config"},
    # Above experiment: it opens and writes each run as experiment does, and no run needs it.
    "stacked": {"config", "data", "experiment", "launch", "methods", "models", "runs", "tracking", "training"},
    "tracking": {"data", "distributed", "methods", "models", "plots", "runs"},
    "training": {"config", "data", "distributed", "launch", "memory", "methods", "metrics", "models", "runs",
                 "tracking"},
}  # fmt: skip
LEAVES = ("distributed", "importance", "metrics", "models", "data", "methods", "memory")
AT_ONCE = {"torch", "lightning", "numpy"}
AT_ONCE_IN = {"data": {"filelock"}}
LATE = {"kornia", "mlxtend", "sklearn", "matplotlib", "PIL", "datasets", "pyarrow", "scipy"}
"""Within a function: only who uses it waits for it, or must have it."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """(dotted name, whether it is imported within a function or for type checkers alone)."""

    def visit(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name_of(path)}: imports are absolute"
                yield from ((f"{child.module}.{alias.name}", late) for alias in child.names)
            else:
                yield from visit(child, late or isinstance(child, ast.FunctionDef | ast.Lambda | ast.If))

    return list(visit(ast.parse(path.read_text()), False))


def room(dotted: str) -> str:
    """lifelong.methods.penalty.Penalty → methods."""
    return dotted.split(".")[1]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    ours = {room(dotted) for dotted, _ in imports(path) if dotted.startswith("lifelong.")} - {"__version__"}
    return ours - {room_of(path)}


@pytest.mark.parametrize("library", ONLY_IN)
def test_border_libraries_stay_at_the_border(library: str) -> None:
    users = {room_of(p) for p in MODULES if any(dotted.split(".")[0] == library for dotted, _ in imports(p))}
    assert users <= ONLY_IN[library]
    assert users


def test_room_imports_only_what_is_below_it() -> None:
    in_rooms = [p for p in MODULES if p.parent != PACKAGE or p.name == "metrics.py"]
    assert [name_of(p) for p in in_rooms if not rooms_imported(p) <= ROOMS[room_of(p)]] == []


def heavy(path: Path) -> set[tuple[str, bool]]:
    """What is imported from elsewhere and may not be."""
    outside = {(dotted.split(".")[0], late) for dotted, late in imports(path)}
    at_once = AT_ONCE | AT_ONCE_IN.get(room_of(path), set()) | {"lifelong", *sys.stdlib_module_names}
    return {(name, late) for name, late in outside if name not in (at_once | LATE if late else at_once)}


def test_leaf_needs_little_and_loads_what_is_heavy_late() -> None:
    assert {name_of(p): heavy(p) for p in MODULES if room_of(p) in LEAVES and heavy(p)} == {}


def test_rooms_are_the_plan() -> None:
    assert {room_of(p) for p in MODULES if p.parent != PACKAGE} | {"metrics"} == set(ROOMS)


def test_no_run_waits_for_the_report() -> None:
    def of_the_report(p: Path) -> bool:
        return any(dotted.startswith("lifelong.plots.report") for dotted, _ in imports(p))

    assert {room_of(p) for p in MODULES if of_the_report(p)} <= {"plots"}


def test_rooms_form_no_circle() -> None:
    graphlib.TopologicalSorter(ROOMS).prepare()  # raises CycleError
