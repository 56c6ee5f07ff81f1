"""Who may import whom (the house's plan): read from the source, so that a late import counts too."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "lifelong"
MODULES = sorted(PACKAGE.rglob("*.py"))

ONLY_IN = {
    "hydra": {"train.py", "cluster.py", "config.py", "experiment.py", "jobs.py"},
    "omegaconf": {
        "train.py",
        "cluster.py",
        "config.py",
        "experiment.py",
        "groups.py",
        "identity.py",
        "rank.py",
        "reference.py",
        "result.py",
        "trainers.py",
        "report/grid.py",
        "report/runs.py",
    },
    "wandb": {"tracking/loggers/wandb.py", "tracking/loggers/wandb_rows.py"},
}
ROOMS: dict[str, set[str]] = {  # room → rooms it may import besides itself
    "distributed": set(),
    "importance": {"distributed"},
    "metrics": set(),
    "backbones": set(),
    "figures": {"atomic"},
    "data": {"distributed"},
    "record": set(),
    "precision": set(),
    "schedulers": set(),
    "stopping": set(),
    "learner": {"data"},
    "evaluation": {"data", "distributed", "learner"},
    "memory": {"data", "distributed", "importance"},
    "launch": {"distributed", "interrupted"},
    "penalties": {"distributed", "importance"},
    "landscape": {"data", "learner", "penalties"},
    "loop": {"checkpoint", "data", "distributed", "evaluation", "learner", "memory", "metrics", "penalties", "record"},
}
LEAVES = (
    "distributed",
    "importance",
    "metrics",
    "backbones",
    "figures",
    "data",
    "learner",
    "precision",
    "schedulers",
    "stopping",
)
AT_ONCE = {"torch", "lightning", "torchmetrics", "numpy"}
AT_ONCE_IN = {"figures": {"matplotlib"}, "data": {"filelock"}}
LATE = {"kornia", "mlxtend", "sklearn", "matplotlib", "PIL", "datasets", "pyarrow", "scipy"}
"""Within a function: only who uses it waits for it, or must have it."""


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
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

    yield from visit(ast.parse(path.read_text()), False)


def room(dotted: str) -> str:
    """lifelong.penalties.base.Penalty → penalties."""
    return dotted.split(".")[1]


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    ours = {room(dotted) for dotted, _ in imports(path) if dotted.startswith("lifelong.")}
    return ours - {room_of(path)}


@pytest.mark.parametrize("library", ONLY_IN)
def test_border_libraries_stay_at_the_border(library: str) -> None:
    users = {name_of(p) for p in MODULES if any(dotted.split(".")[0] == library for dotted, _ in imports(p))}
    assert users <= ONLY_IN[library]
    assert users


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in ROOMS], ids=name_of)
def test_room_imports_only_what_is_below_it(path: Path) -> None:
    assert rooms_imported(path) <= ROOMS[room_of(path)]


@pytest.mark.parametrize("path", [p for p in MODULES if room_of(p) in LEAVES], ids=name_of)
def test_leaf_needs_little_and_loads_what_is_heavy_late(path: Path) -> None:
    outside = {(dotted.split(".")[0], late) for dotted, late in imports(path) if not dotted.startswith("lifelong.")}
    outside = {(name, late) for name, late in outside if name not in sys.stdlib_module_names}
    at_once = AT_ONCE | AT_ONCE_IN.get(room_of(path), set())
    assert {name for name, late in outside if not late} <= at_once
    assert {name for name, late in outside if late} <= at_once | LATE


def test_only_the_wiring_sees_the_loop_and_only_the_entrances_see_the_wiring() -> None:
    assert {name_of(p) for p in MODULES if "loop" in rooms_imported(p)} == {"experiment.py"}
    entrances = {p for p in MODULES if any(d.startswith("lifelong.experiment") for d, _ in imports(p))}
    assert {name_of(p) for p in entrances} <= {"__init__.py", "rank.py"}


def test_no_run_waits_for_the_report() -> None:
    assert {name_of(path) for path in MODULES if "report" in rooms_imported(path)} == set()


def test_learner_and_penalties_know_nothing_of_each_other() -> None:
    for path in MODULES:
        if room_of(path) == "learner":
            assert "penalties" not in rooms_imported(path)
        if room_of(path) == "penalties":
            assert "learner" not in rooms_imported(path)


def test_rooms_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        if path != PACKAGE / "__init__.py":
            graph.setdefault(room_of(path), set()).update(rooms_imported(path))
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
