"""The parts of a run that Python builds one by one, and where the configuration has them."""

import re
from functools import cache
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

PACKAGE = Path(__file__).resolve().parents[1]
CONFIGS = (PACKAGE / "configs").resolve()
"""Of an installed package within it; in a checkout a link to configs/ at its top."""
GROUPS = (
    "method",
    "dataset",
    "dataset.source",
    "backbone",
    "memory",
    "augment",
    "normalise",
    "optimizer",
    "scheduler",
    "early_stopping",
    "trainer",
)
FREEZE = "backbone.freeze"
"""An option of every backbone, its own class's or not: the learner carries it out."""
LOGGER = "logger"
"""Holds loggers by name, none or several: logger=[csv,wandb]."""
SOURCE = "dataset.source"
SOURCES = "dataset.sources"
"""Several sources by name, in the place of dataset.source: +dataset/source@dataset.sources.NAME=CHOICE."""


def groups_of(config: DictConfig) -> list[str]:
    """The keys of all parts of this configuration, each named source and each logger a part of its own."""
    loggers = [f"{LOGGER}.{name}" for name in config.logger]
    sources = OmegaConf.select(config, SOURCES)
    if not OmegaConf.is_dict(sources):
        return [*GROUPS, *loggers]
    return [*(group for group in GROUPS if group != SOURCE), *(f"{SOURCES}.{name}" for name in sources), *loggers]


def is_wired(key: str) -> bool:
    """Whether Python hands what stands there to what stands above it."""
    return key in (*GROUPS, SOURCES, FREEZE) or key.rpartition(".")[0] == SOURCES


def choices(group: str) -> list[str]:
    """The names a group can be given, e.g. of `dataset.source`."""
    return sorted(p.stem for p in _folder(group).glob("*.yaml"))


@cache
def usual_target(group: str, name: str) -> str | None:
    """The `_target_` that a choice's yaml of this package has; None without such a yaml, or if another one gives it."""
    file = _folder(group) / f"{name}.yaml"
    found = re.search(r"^_target_: *(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    return found[1] if found else None


def _folder(group: str) -> Path:
    if group.startswith(f"{LOGGER}."):
        return CONFIGS / LOGGER
    return CONFIGS / ("dataset/source" if group.startswith(f"{SOURCES}.") else group.replace(".", "/"))
