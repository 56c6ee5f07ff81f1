"""What decides a run's numbers: its settings, the run id that follows from them, and the code it ran."""

import hashlib
import inspect
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import fields
from functools import reduce
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lifelong.config.groups import PACKAGE, SOURCE, SOURCES, groups_of
from lifelong.config.schema import Recipes, Watching, choice
from lifelong.runs.folder import run_id

LEFT_OUT = {field.name for part in (Watching, Recipes) for field in fields(part)}
ADDED: dict[str, Any] = {
    "init_from": None,
    "drop_last": False,
    "shuffle": True,
    "active_classes": "seen",
    "dataset.active_classes": "seen",
    "dataset.pad": 0,
    "dataset.num_tasks": None,
    "dataset.interpolation": "bilinear",
    "backbone.init": "torch",
}
"""Keys that came later, dotted, and their defaults: left out while at these, so that older runs keep their ids."""
ADDED_TO: dict[str, dict[str, Any]] = {
    "si": {"gradient": "task", "clamp": True, "reference": "start", "ceiling": None},
    "rwalk": {"half": True, "window": "step", "decay": 0.5},
    "ewcpp": {"window": "step"},
    "mas": {"batch": None, "outputs": "sum", "gamma": 1.0},
    "gem": {"bound": False, "ridge": 0.0, "rehearse": False},
    "lwf": {"weight": "heads", "columns": "old", "reduction": "batchmean"},
    "icarl": {"temperature": 1.0},
    "joint": {"schedule": "cumulative"},
}
"""Likewise the options of each method; another may have had one of that name from the start."""


def added(method: str) -> dict[str, Any]:
    """The keys that came later, of a run of this method, and their defaults."""
    return ADDED | {f"method.{key}": default for key, default in ADDED_TO.get(method, {}).items()}


def identity(config: DictConfig) -> dict[str, Any]:
    """What decides the run's numbers, resolved and plain; a group is named by its choice, not by an import path."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for group, name in plain["choices"].items():
        *above, last = group.split(".")
        node = reduce(dict.__getitem__, above, plain)[last]
        node["_target_"] = name
        node.pop("cache", None)
    for key, default in added(plain["choices"]["method"]).items():
        *above, last = key.split(".")
        node = reduce(lambda node, part: node.get(part, {}), above, plain)
        if node.get(last, default) == default:
            node.pop(last, None)
    return {k: v for k, v in plain.items() if k not in LEFT_OUT}


def flattened(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys, {"method.strength": 1000.0, …}; lists and empty ones stay values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        nested = isinstance(value, Mapping) and value
        flat |= flattened(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def setting(config: DictConfig) -> dict[str, Any]:
    """What decides a run's numbers but for the seed: runs that share it may be averaged."""
    plain = identity(config)
    plain["dataset"].pop("seed", None)
    return {k: v for k, v in plain.items() if k != "seed"}


def stream_setting(config: DictConfig) -> dict[str, Any]:
    """What decides the numbers but for method and memory: a run's upper bound is the joint run that shares it."""
    return {k: v for k, v in identity(config).items() if k not in ("method", "memory")}


def source_names(config: DictConfig) -> list[str]:
    """Of each source its choice, or what the hub calls it."""
    keys = [f"{SOURCES}.{name}" for name in config.dataset.sources] if "sources" in config.dataset else [SOURCE]
    return [Path(OmegaConf.select(config, key).get("name") or choice(config, key)).name for key in keys]


def identifier(config: DictConfig) -> str:
    """The run id: what can be read at a glance, and a hash of all that decides the numbers."""
    parts = [choice(config, "method"), choice(config, "dataset"), *source_names(config), f"s{config.seed}"]
    if choice(config, "memory") != "none":
        parts.insert(1, choice(config, "memory"))
    return run_id("-".join(parts), identity(config))


def code_hashes(config: DictConfig) -> dict[str, str]:
    """Hashes of the source files a checked configuration runs, 12 hex digits each.

    code: of this package and of what each `_target_` names. method_code: of what the method's names.
    Files of installed libraries are none of them, nor are modules that a file imports.
    """
    found = {group: source_files(OmegaConf.select(config, group)._target_) for group in groups_of(config)}
    everything = {path.relative_to(PACKAGE).as_posix(): path for path in PACKAGE.rglob("*.py")}
    for files in found.values():
        everything |= {name: path for name, path in files.items() if not path.is_relative_to(PACKAGE)}
    return {"code": _hash(everything), "method_code": _hash(found["method"])}


def changed_code(metrics: Mapping[str, Any], config: DictConfig) -> str | None:
    """One line if a finished run's code is not today's, else None; None, too, if its metrics.json has no hashes."""
    now = code_hashes(config)
    changed = [key for key in ("method_code", "code") if metrics.get(key) not in (None, now[key])]
    if not changed:
        return None
    whose = f"the code of method {choice(config, 'method')}" if "method_code" in changed else "code"
    return f"{whose} has changed since (metrics.json: {changed[0]}): keep the old numbers, or train again by rerun=true"


def source_files(target: str) -> dict[str, Path]:
    """Source files of a class and its bases, or of a function, by module; without those of installed libraries."""
    named = inspect.unwrap(resolve_name(target))
    modules = {part.__module__ for part in (named.__mro__ if inspect.isclass(named) else [named])}
    files = {module: getattr(sys.modules[module], "__file__", None) for module in modules}
    libraries = [Path(sysconfig.get_path(place)).resolve() for place in ("stdlib", "purelib", "platlib")]

    def is_library(path: Path) -> bool:
        return not path.is_relative_to(PACKAGE) and any(path.is_relative_to(library) for library in libraries)

    paths = {module: Path(file).resolve() for module, file in files.items() if file}
    return {module: path for module, path in paths.items() if not is_library(path)}


def _hash(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in sorted(files.items()):
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()[:12]


def title(config: DictConfig) -> str:
    """What a run is, to be read by people: ewc λ=1000 · rotated mnist5k · seed 0."""
    method = choice(config, "method") + (f" λ={config.method.strength:g}" if "strength" in config.method else "")
    kept = choice(config, "memory")
    memory = [] if kept == "none" else [f"memory {kept}"]
    scenario = [] if config.scenario == "domain" else [f"{config.scenario}-incremental"]
    stream = " ".join([choice(config, "dataset"), *source_names(config)])
    return " · ".join([method, *memory, stream, *scenario, f"seed {config.seed}"])
