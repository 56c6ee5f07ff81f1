"""Errors a user can mend, in one line on stderr; a defect of the program keeps its traceback."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from lifelong.config.credentials import exposed, refusal
from lifelong.config.options import must_be
from lifelong.config.overrides import checked
from lifelong.config.schema import ConfigError, compose, one_line
from lifelong.runs.interrupted import Interrupted

MENDABLE = {"MisconfigurationException", "OutOfMemoryError", "MemoryError"}
"""By name, from libraries that need not be loaded to explain an error."""
PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "sweep", "optuna": "sweep"}
"""Hydra's launchers and sweepers that are packages of their own, and the extra that brings them."""
COMMAND = "LIFELONG_COMMAND"
"""Environment variable: the process of the command that started this one, or is this one."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command: says what the user can mend in one line and ends with exit code 1, or 128 + the signal number.

    HYDRA_FULL_ERROR=1 shows tracebacks instead. A secret of the environment is refused even before Hydra, which writes
    a multirun's arguments down.
    """
    for argument in sys.argv[1:]:
        if variable := exposed(argument):
            sys.exit(f"error: {refusal(argument.partition('=')[0].lstrip('+~'), variable)}")
    if wants_tracebacks():
        yield
        return
    try:
        with _hydra_raises():
            yield
    except (Interrupted, KeyboardInterrupt) as error:
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signum)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def wants_tracebacks() -> bool:
    """Whether the user asked for them; within a command HYDRA_FULL_ERROR is its own."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and COMMAND not in os.environ


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra hands its exceptions on instead of printing several lines."""
    before = {key: os.environ.get(key) for key in ("HYDRA_FULL_ERROR", COMMAND)}
    os.environ.update({"HYDRA_FULL_ERROR": "1", COMMAND: str(os.getpid())})
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def explain(error: BaseException) -> str | None:
    """One line for an error a user can mend; None for a defect of the program, which deserves its traceback."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_composition(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    library = type(error).__module__.split(".")[0]
    mendable = isinstance(error, ConfigError | OSError) or type(error).__name__ in MENDABLE
    if mendable or library in ("lifelong", "submitit") or type(error).__module__.startswith("wandb.errors"):
        return one_line(error) or type(error).__name__
    return None


def _explain_missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    if name in PLUGINS:
        return f"{name} of Hydra is not installed: pip install 'lifelong[{PLUGINS[name]}]'"
    return must_be(group, f"one of {', '.join(error.options or [])}", name)


def _explain_composition(error: BaseException) -> str:
    """Its cause if that is ours (a resolver's); else Hydra's words, with the key if they name none."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, ConfigError):
        cause = cause.__cause__
    key = getattr(error, "full_key", None) or getattr(error.__cause__, "full_key", None)
    text = one_line(cause or error).partition("; full_key")[0]
    return f"{key}: {text}" if key and not cause and key not in text else text


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of `python train.py *overrides`, with ConfigError in place of what Hydra raises."""
    try:
        return compose(checked(overrides))
    except Exception as error:
        message = explain(error)
        if message is None or isinstance(error, ConfigError):
            raise
        raise ConfigError(message) from error
