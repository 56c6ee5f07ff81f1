"""The command: `python train.py`, `python -m lifelong` and `lifelong` run this."""

import os
import sys
from contextlib import nullcontext

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from lifelong.config.groups import CONFIGS
from lifelong.config.overrides import SEARCHPATH, check_sweep, checked
from lifelong.config.schema import ConfigError, register, with_choices
from lifelong.experiment.errors import COMMAND, explain, one_line_errors, wants_tracebacks
from lifelong.launch.cluster import end_job
from lifelong.launch.jobs import Jobs, Outcome, chosen_by_objectives, ended_with, multirun_job
from lifelong.runs.interrupted import Interrupted


def main() -> None:
    """One run, or the jobs of a multirun: of each that fails a line, in the end the count, and exit code 1."""
    with one_line_errors():
        register()
        sys.argv = _checked(sys.argv)
        Jobs.current = None
        try:
            job()
        except ValueError as error:
            if not (Jobs.current and Jobs.current.all_failed()):
                raise
            raise ConfigError("no trial of the sweep succeeded: the lines above say why") from error
        if Jobs.current:
            Jobs.current.sum_up()


def _checked(argv: list[str]) -> list[str]:
    """The command's words with its overrides as Hydra takes them; raises ConfigError."""
    args = get_args_parser().parse_intermixed_args(argv[1:])
    modes = [mode for mode in ("run", "multirun", "cfg", "info") if getattr(args, mode)]
    if len(modes) > 1:
        raise ConfigError(f"one of --run, --multirun, --cfg and --info at a time, got --{' --'.join(modes)}")
    searched = [f"{SEARCHPATH}=[file://{os.path.abspath(args.config_dir)}]"] if args.config_dir else []
    overrides = [*args.overrides, *searched]
    multirun = args.multirun or "hydra.mode=MULTIRUN" in overrides
    given = dict(zip(args.overrides, checked(overrides, multirun=multirun), strict=False))
    if modes in ([], ["run"], ["multirun"]) and not (args.help or args.hydra_help):
        note = check_sweep(overrides, multirun=multirun)
        if note:
            print(f"note: {note}", file=sys.stderr)
    flags = [word for word in argv[1:] if word not in given]  # first: Hydra takes none amid overrides
    return [argv[0], *flags, *given.values()]


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


def _learned(config: DictConfig) -> Outcome:
    with open_dict(config):
        with_choices(config, HydraConfig.get())
    from lifelong.experiment.run import run_experiment  # loads torch and lightning: --help does not wait for them

    if chosen_by_objectives() and not config.val_fraction:
        raise ConfigError(f"val_fraction must be > 0 where a sweep chooses by it, got {config.val_fraction}")
    try:
        result = run_experiment(config)
    except Interrupted as stop:
        end_job(stop)
        raise
    return Outcome(tuple(result.metrics[name] for name in config.objectives), trained=result.trained)
