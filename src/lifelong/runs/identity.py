"""What decides a run's numbers, and the run id that follows from it."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

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
    "reference",
    "objectives",
    "checkpoint_steps",
    "resident_bytes",
    "trusted",
    "rank_timeout_seconds",
)
"""Where and how a run is watched, not what it computes: left out of the run id."""
RECIPES = ("experiment", "sweep", "strength_factor")
"""What has set other keys and has no meaning of its own."""

NEUTRAL = {"keep_optimizer": False, "dataset.window": None, "trainer.max_steps": -1}
"""Keys that came after the first run ids, and the value at which each changes nothing: left out of the id there, so
that runs from before still answer."""


def identity(config: DictConfig) -> dict[str, Any]:
    """What decides the run's numbers, resolved and plain."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    dataset = plain["dataset"]
    for source in (dataset.get("source", {}), *dataset.get("sources", {}).values()):
        source.pop("cache", None)
    for key, value in NEUTRAL.items():
        parent, _, name = key.rpartition(".")
        node = plain[parent] if parent else plain
        if name in node and node[name] == value:
            del node[name]
    return {k: v for k, v in plain.items() if k not in (*ENVIRONMENT_KEYS, *RECIPES)}


def setting(config: DictConfig) -> dict[str, Any]:
    """What decides a run's numbers but for the seed: runs that share it may be averaged."""
    plain = identity(config)
    plain["dataset"].pop("seed", None)
    return {k: v for k, v in plain.items() if k != "seed"}


def source_names(config: DictConfig) -> list[str]:
    nodes = config.dataset.sources.values() if "sources" in config.dataset else [config.dataset.source]
    return [Path(node.get("name") or choice(node)).name for node in nodes]  # a hub set is called what the hub calls it


def identifier(config: DictConfig) -> str:
    """The run id: what can be read at a glance, and a hash of all that decides the numbers."""
    parts = [choice(config.method), choice(config.dataset), *source_names(config), f"s{config.seed}"]
    if choice(config.memory) != "none":
        parts.insert(1, choice(config.memory))
    return run_id("-".join(parts), identity(config))


def title(config: DictConfig) -> str:
    """What a run is, to be read by people: ewc λ=1000 · rotated mnist5k · seed 0."""
    method = f"{choice(config.method)} λ={config.method.strength:g}"
    memory = [] if choice(config.memory) == "none" else [f"memory {choice(config.memory)}"]
    scenario = [] if config.scenario == "domain" else [f"{config.scenario}-incremental"]
    stream = " ".join([choice(config.dataset), *source_names(config)])
    return " · ".join([method, *memory, stream, *scenario, f"seed {config.seed}"])
