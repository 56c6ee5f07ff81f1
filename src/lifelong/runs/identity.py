"""What decides a run's numbers, and the run id that follows from it."""

from functools import reduce
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from lifelong.config.groups import SOURCE, SOURCES
from lifelong.config.schema import choice
from lifelong.runs.folder import run_id

ENVIRONMENT_KEYS = (
    "name",
    "root",
    "rerun",
    "progress",
    "num_threads",
    "logger",
    "log_every_n_steps",
    "checkpoint_seconds",
    "objectives",
    "checkpoint_steps",
    "resident_bytes",
    "trusted",
    "rank_timeout_seconds",
)
"""Where and how a run is watched, not what it computes: left out of the run id."""
RECIPES = ("experiment", "sweep", "strength_factor", "choices")
"""What has set other keys and has no meaning of its own."""


def identity(config: DictConfig) -> dict[str, Any]:
    """What decides the run's numbers, resolved and plain; a group is named by its choice, not by an import path."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for group, name in plain["choices"].items():
        *above, last = group.split(".")
        node = reduce(dict.__getitem__, above, plain)[last]
        node["_target_"] = name
        node.pop("cache", None)
    return {k: v for k, v in plain.items() if k not in (*ENVIRONMENT_KEYS, *RECIPES)}


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


def title(config: DictConfig) -> str:
    """What a run is, to be read by people: ewc λ=1000 · rotated mnist5k · seed 0."""
    method = choice(config, "method") + (f" λ={config.method.strength:g}" if "strength" in config.method else "")
    kept = choice(config, "memory")
    memory = [] if kept == "none" else [f"memory {kept}"]
    scenario = [] if config.scenario == "domain" else [f"{config.scenario}-incremental"]
    stream = " ".join([choice(config, "dataset"), *source_names(config)])
    return " · ".join([method, *memory, stream, *scenario, f"seed {config.seed}"])
