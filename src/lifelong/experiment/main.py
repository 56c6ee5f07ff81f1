"""The command: `python train.py`, `python -m lifelong` and `lifelong` run this."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from lifelong.config.groups import CONFIGS
from lifelong.config.overrides import checked, search_path
from lifelong.config.schema import ConfigError, register, with_choices
from lifelong.experiment.errors import COMMAND, composed, explain, one_line_errors, wants_tracebacks
from lifelong.launch.cluster import end_job
from lifelong.launch.jobs import Jobs, Outcome, chosen_by_objectives, ended_with, multirun_job
from lifelong.runs.interrupted import Interrupted


def main() -> None:
    """One run, or the jobs of a multirun: of each that fails a line, in the end the count, and exit code 1."""
    atexit.register(gc.freeze)  # else Python ends by looking for cycles in all of torch, for a second or more
    with one_line_errors():
        register()
        arguments = get_args_parser().parse_intermixed_args(sys.argv[1:])
        given = arguments.overrides
        search = search_path(arguments.config_dir)
        if arguments.cfg == "job" and not (arguments.package or arguments.multirun):
            print(OmegaConf.to_yaml(composed([*given, *search]), resolve=True), end="")  # Hydra knows no as_published
            return
        flags = [word for word in sys.argv if word not in given]  # first: Hydra takes none amid overrides
        sys.argv = [*flags, *checked(given)]
        Jobs.current = None
        try:
            job()
        except ValueError as error:
            if str(error).startswith("Only one of --run"):
                raise ConfigError(str(error)) from error
            if not (Jobs.current and Jobs.current.all_failed()):
                raise
            raise ConfigError("no trial of the sweep succeeded: the lines above say why") from error
        if Jobs.current:
            Jobs.current.sum_up()


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")  # type: ignore[untyped-decorator]
def job(config: DictConfig) -> Outcome:
    """A run. As a job of a multirun it says what it failed of instead of raising, so that the others run.

    A job of a cluster that was interrupted ends as its scheduler needs it (`end_job`).
    """
    in_worker = os.environ.get(COMMAND) == str(os.getppid())
    try:
        with ended_with(os.getppid()) if in_worker else nullcontext():
            return _learned(config)
    except Exception as error:
        message = None if wants_tracebacks() else explain(error)
        if message is None:
            raise
        if multirun_job() is None:
            sys.exit(f"error: {message}")
        return Outcome(failed=message)


def prepare(config: DictConfig) -> None:
    """Complete the configuration of the job that Hydra says is running.

    Raises:
        ConfigError: it is no job that this command may have.
    """
    _check_sweep()
    with open_dict(config):
        with_choices(config, HydraConfig.get())
    if chosen_by_objectives() and not config.val_fraction:
        raise ConfigError(f"val_fraction must be > 0 where a sweep chooses by it, got {config.val_fraction}")


def _learned(config: DictConfig) -> Outcome:
    prepare(config)
    with loading():
        from lifelong.experiment.run import run_experiment  # torch and lightning: --help does not wait for them

    try:
        result = run_experiment(config)
    except Interrupted as stop:
        end_job(stop)
        raise
    return Outcome(tuple(result.metrics[name] for name in config.objectives), trained=result.trained)


@contextmanager
def loading() -> Iterator[None]:
    """Around imports of torch and Lightning: looking for garbage in what they make, which stays, takes 0.7 s."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _check_sweep() -> None:
    """Say that an experiment's own sweep does not start in a single run.

    Raises:
        ConfigError: `sweep` without a multirun, or a multirun that does not go over the sweep of its choices.
    """
    given = dict(text.lstrip("+").partition("=")[::2] for text in HydraConfig.get().overrides.task)
    keys = {str(key).lstrip("+") for key in HydraConfig.get().sweeper.get("params") or {}} - given.keys()
    names = ", ".join(sorted(keys))
    chosen = " ".join(f"{group}={given[group]}" for group in ("experiment", "sweep") if group in given)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        if keys:
            raise ConfigError(f"experiment and sweep must be one at a time, as {chosen} sweeps itself over {names}")
    elif given.get("sweep", "[]") != "[]":
        raise ConfigError(f"{chosen} starts several runs and wants --multirun (-m)")
    elif keys:
        print(f"note: {chosen} sweeps over {names} with --multirun (-m); this is one run of it", file=sys.stderr)
