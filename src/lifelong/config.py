"""From the command line to objects: the typed root, the one caller of Hydra's instantiate, one-line errors."""

import difflib
import functools
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
ENVIRONMENT_KEYS = (
    "name",
    "root",
    "rerun",
    "progress",
    "num_threads",
    "logger",
    "log_every_n_steps",
    "checkpoint_seconds",
)
"""Where and how a run is watched, not what it computes: left out of the run id."""


FULL_ERRORS = os.environ.get("HYDRA_FULL_ERROR") == "1"


class ConfigError(ValueError):
    """A setting outside what is allowed; the message is one line that names key, value and what is allowed."""


@dataclass
class Config:
    """The root of the configuration; the groups' own keys stand in configs/<group>/<choice>.yaml."""

    method: Any = MISSING
    dataset: Any = MISSING
    backbone: Any = MISSING
    memory: Any = MISSING
    optimizer: Any = MISSING
    trainer: Any = MISSING
    logger: Any = MISSING
    experiment: Any = None
    seed: int = 0
    scenario: str = "domain"  # domain | task | class: which output columns are visible when
    val_fraction: float = 0.1  # of each task's training data
    batch_size: int = 128
    name: str = "default"  # runs/<name>/<run id>/
    root: str = "runs"
    rerun: bool = False  # train again although the run is finished
    num_threads: int | None = 1  # torch threads: 1 does not suffer from busy neighbours; None: torch's choice
    log_every_n_steps: int = 10
    checkpoint_seconds: float = 60.0
    progress: bool = True


def register() -> None:
    """Make the typed root known to Hydra as `schema`."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=Config)


def check(config: DictConfig) -> None:
    """Raises ConfigError for a root value outside what is allowed; constructors check their own."""
    if config.seed < 0:
        raise ConfigError(f"seed must be an integer >= 0, got {config.seed}")
    if config.batch_size < 1:
        raise ConfigError(f"batch_size must be an integer >= 1, got {config.batch_size}")
    if config.num_threads is not None and config.num_threads < 1:
        raise ConfigError(f"num_threads must be an integer >= 1 or null, got {config.num_threads}")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", config.name) or ".." in config.name:
        raise ConfigError(f"name must be a folder name of letters, digits, '_', '-', '.', got {config.name!r}")


def choice(node: DictConfig) -> str:
    """The name of what a group builds: its file, e.g. lifelong.penalties.ewc.EWC → ewc."""
    return str(node._target_).split(".")[-2]


def factory(node: DictConfig, key: str) -> Callable[..., Any]:
    """The group's `_target_` with its options bound. Nested groups stay out: Python wires those.

    Raises (when called): ConfigError instead of the TypeError or ValueError of a constructor that refuses.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    options: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    options = {k: v for k, v in options.items() if not (isinstance(v, dict) and "_target_" in v)}
    if "_target_" not in options:
        raise ConfigError(f"{key} must have a _target_, got {options}")
    try:
        partial = instantiate({**options, "_partial_": True}, _convert_="all")
    except InstantiationException as error:
        raise ConfigError(f"{key}._target_: {_one_line(error)}") from error

    @functools.wraps(partial.func)
    def build(*args: Any, **wired: Any) -> Any:
        try:
            return partial(*args, **wired)
        except (TypeError, ValueError) as error:
            message = _one_line(error)
            named = message.startswith((f"{key}.", f"{key} ", key.split(".")[0] + "."))
            given = {k: v for k, v in options.items() if k != "_target_"}
            raise ConfigError(message if named else f"{key}: {message} (given {given})") from error
        except OSError as error:
            raise ConfigError(f"{key}: {_one_line(error)}") from error

    return build


def build(node: DictConfig, key: str, **wired: Any) -> Any:
    """What the group configures, with the objects Python wires in."""
    return factory(node, key)(**wired)


def identity(config: DictConfig) -> dict[str, Any]:
    """What decides the run's numbers, resolved and plain."""
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return {k: v for k, v in plain.items() if k not in (*ENVIRONMENT_KEYS, "experiment")}


def compose(overrides: list[str]) -> DictConfig:
    """The configuration of `python train.py *overrides`."""
    import hydra

    register()
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        return hydra.compose("train", overrides)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Print what the user can mend as one line and exit with 1; HYDRA_FULL_ERROR=1 shows the traceback instead.

    A job of a multirun says its line and hands the error on, so that the other jobs run; the exit code is then 1 too.
    """
    if FULL_ERRORS:
        yield
        return
    try:
        with _hydra_raises():
            yield
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        if not _in_multirun():
            sys.exit(f"error: {message}")
        print(f"error: {message}", file=sys.stderr)
        raise


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra hands its exceptions on instead of printing several lines."""
    before = os.environ.get("HYDRA_FULL_ERROR", "0")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before


def _in_multirun() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


def explain(error: BaseException) -> str | None:
    """One line for an error a user can mend; None for a defect of the program, which deserves its traceback."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_hydra(error)
    if isinstance(error, ConfigError | OSError) or type(error).__name__ in ("Interrupted",):
        return _one_line(error)
    if type(error).__module__.startswith("lifelong."):
        return _one_line(error)
    return None


def _explain_hydra(error: BaseException) -> str:
    text = str(error)
    unknown = re.search(r"Could not override '([^']+)'", text)
    if unknown:
        return _unknown_key(unknown.group(1))
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        group, _, wrong = missing.group(1).rpartition("/")
        return f"{group} must be one of {', '.join(_options(group))}, got {wrong!r}"
    override = next(
        (a for a in sys.argv[1:] if (k := a.split("=")[0].lstrip("+~")) and re.search(rf"\b{re.escape(k)}\b", text)), ""
    )
    line = _one_line(error)
    return f"{override}: {line}" if override and override not in line else line


def _unknown_key(key: str) -> str:
    parent, _, wrong = key.rpartition(".")
    overrides = [a for a in sys.argv[1:] if re.match(r"[\w/@]+=", a) and "," not in a]
    node = compose([o for o in overrides if "." not in o.split("=")[0] and o.split("=")[0] != key])
    allowed = sorted(k for k in (OmegaConf.select(node, parent) if parent else node) if not k.startswith("_"))
    near = difflib.get_close_matches(wrong, allowed, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    return f"unknown key {key!r}{hint}: {parent or 'the configuration'} has {', '.join(allowed)}"


def _options(group: str) -> list[str]:
    return sorted(p.stem for p in (CONFIGS / group).glob("*.yaml"))


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and not line.startswith(("object_type", "Set the environment")))
