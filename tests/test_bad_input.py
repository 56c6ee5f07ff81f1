"""Bad input ends before any training with exactly one line that names key, value and what is allowed."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from omegaconf.errors import InterpolationResolutionError

import lifelong
from lifelong.config.checks import check
from lifelong.config.groups import choices
from lifelong.config.schema import ConfigError
from lifelong.data.source import Source
from lifelong.experiment.errors import composed, explain
from lifelong.experiment.run import run_experiment
from runs import TINY, command, composed_tiny, refused

METHODS = ", ".join(choices("method"))


REFUSALS = {
    # misspelt
    "metod=ewc": "unknown key 'metod' (did you mean method?): the configuration has ",
    "methd.strength=3": "unknown key 'methd' (did you mean method?): the configuration has ",
    "+foo=1": "unknown key 'foo': the configuration has ",
    "seed.x=1": "seed.x=1: Value '{}' of type 'dict' could not be converted to Integer",
    "dataset.sorce.path=x": "unknown key 'dataset.sorce' (did you mean source?): dataset has ",
    "dataset/sorce=digits": "unknown key 'dataset/sorce' (did you mean dataset?): the configuration has ",
    "method.strenght=1": "unknown key 'method.strenght' (did you mean strength?): method has ",
    "+trainer.max_epoch=1": "unknown key 'trainer.max_epoch' (did you mean max_epochs?): trainer has ",
    "dataset.source.test_fracton=0.1": "unknown key 'dataset.source.test_fracton' (did you mean test_fraction?)",
    "optimizer.nesterov=true": "unknown key 'optimizer.nesterov': optimizer has ",  # Adam has none
    "method=ewcc": f"method must be one of {METHODS}, got 'ewcc'",
    "method=null": f"method must be one of {METHODS}, got null",
    "method=[ewc,si]": f"method must be one of {METHODS}, got '[ewc,si]'",
    "~method": f"method must be one of {METHODS}, got null",
    "dataset/source=mnist5": "dataset/source must be one of ",
    "logger=false": "logger must be one of csv, mlflow, none, tensorboard, trackio, wandb, got false",
    "logger=[csv,5]": "logger must be one of csv, mlflow, none, tensorboard, trackio, wandb, got '[csv,5]'",
    "dataset=5": "dataset must be one of domains, permuted, rotated, split, got 5",
    "-m seed=0,1 memory=200": f"memory must be one of {', '.join(choices('memory'))}, got 200",
    "-m memory=none,200": f"memory must be one of {', '.join(choices('memory'))}, got 200",
    "hydra/launcher=5": "hydra/launcher must be the name of a choice, got 5",
    "+dataset/source@dataset.sources.a=7": "dataset/source@dataset.sources.a must be one of arrays, ",
    "logger=[csv,none]": "logger must be one of csv, mlflow, none, tensorboard, trackio, wandb, got '[csv,none]'",
    "logger=[csv,wandbb]": "logger must be one of csv, mlflow, none, tensorboard, trackio, wandb, got 'wandbb'",
    "-m sweep=[seeds,method]": f"sweep must be one of {', '.join(choices('sweep'))}, got 'method'",
    "logger.projekt=x": "logger.projekt must be one of csv, mlflow, none, tensorboard, trackio, wandb, got 'x'",
    "seed": "override 'seed' must be written key=value: ",
    "seed=[1": "override 'seed=[1' must be written key=value: ",
    "seed=1,2": "Ambiguous value for argument 'seed=1,2'; 1. To use it as a list, use key=[value1,value2]; ",
    "method.strength=${foo}": "Interpolation key 'foo' not found",
    "sweep=seeds": "sweep=seeds starts several runs and wants --multirun (-m)",
    "-m --cfg job": "Only one of --run, --multirun, --cfg, --info and --shell_completion can be specified",
    # of the wrong type
    "seed=abc": "seed=abc: Value 'abc' of type 'str' could not be converted to Integer",
    "method.strength=abc": "method.strength must be a valid number, got 'abc'",
    "trainer.max_epochs=abc": "trainer.max_epochs must be a valid integer or null, got 'abc'",
    "as_published=null": "as_published=null: field 'as_published' is not Optional",
    "+as_published.ewc=3": "+as_published.ewc=3: Cannot assign int to Dict[str, Any]",
    "+choices.foo=bar": "choices must be left out: the choices of the groups fill it in, got {'foo': 'bar'}",
    "+dataset.sources=5": "dataset.sources must be sources by name, each +dataset/source@dataset.sources.NAME=CHOICE, ",
    "logger=wandb logger.wandb.tags=3": "logger.wandb.tags must be a valid list, got 3",
    # outside what is allowed
    "method.strength=-1": "method.strength must be a finite number >= 0, got -1",
    "logger=wandb logger.wandb.init_timeout=0": "logger.wandb.init_timeout must be a finite number of seconds > 0, ",
    "trainer.devices=999": "trainer.devices must be at most the number of CPU cores, ",
    "scenario=foo": "scenario must be one of domain, task, class, got 'foo'",
    # from elsewhere
    "method._target_=os.system": "method._target_ must start with lifelong., torch., lightning., torchmetrics. or ",
    "+method.x={_target_:os.system}": "method.x must be a value, not a _target_ of its own",
    "tf32=maybe": "tf32=maybe: Value 'maybe' is not a valid bool",
}
"""Whole commands."""
VALUES = {
    # of the wrong type
    "method.strength=null": "method.strength must be a valid number, got null",
    "trainer.precision=33": "trainer.precision must be 64, 32 or 16 or ",
    "optimizer.fused=abc": "optimizer.fused must be a valid boolean or null, got 'abc'",
    "dataset.window=3": "dataset.window must be a valid list or null, got 3",
    # outside what is allowed
    "method.strength=nan": "method.strength must be a finite number >= 0, got nan",
    "method.labels=foo": "method.labels must be one of exact, sampled, empirical, weighted, pred, batched, got 'foo'",
    "method=si method.gradient=foo": "method.gradient must be one of task, total, got 'foo'",
    "method=si method.clamp=1": "method.clamp must be ",
    "method=si method.clamp=false method.step=proximal": "method.step must be gradient with ",
    "method=lwf method.weight=sum": "method.weight must be one of heads, tasks, got 'sum'",
    "method=lwf method.columns=all": "method.columns must be one of old, visible, got 'all'",
    "method=lwf method.reduction=sum": "method.reduction must be one of batchmean, mean, got 'sum'",
    "method=lwf method.columns=visible": "scenario must be class with method.columns=visible, got 'domain'",
    "method=lwf method.columns=visible scenario=class active_classes=all": "active_classes must be seen with "
    "method.columns=visible (else none is new), got all",
    "method=mas method.batch=0": "method.batch must be an integer >= 1 or null, got 0",
    "method=joint method.schedule=twice": "method.schedule must be one of cumulative, once, got 'twice'",
    "method=joint epochs_per_task=[1,1] method.schedule=once": "epochs_per_task must be null with method.schedule=once",
    "method.exclude=[foo]": "method.exclude must hold prefixes of body.1.weight, ",
    "trainer.max_epochs=0": "trainer.max_epochs must be an integer >= 1, or with trainer.max_steps -1 or ",
    "trainer.max_epochs=-1": "trainer.max_epochs must be an integer >= 1, or with trainer.max_steps -1 or ",
    "trainer.max_steps=0": "trainer.max_steps must be an integer >= 1 or -1 (no limit), got 0",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val must be a finite number > 0 or null, got -1",
    "trainer.gradient_clip_algorithm=x": "trainer: `gradient_clip_algorithm` x is invalid.",
    "trainer.accelerator=foo": "trainer: You selected an invalid accelerator name: `accelerator='foo'`.",
    "optimizer.lr=nan": "optimizer.lr must be a finite number >= 0, got nan",
    "backbone.widths=[]": "backbone.widths must be a non-empty list of positive integers, got []",
    "backbone.dropout=1": "backbone.dropout must be a number in [0, 1), got 1",
    "dataset.angles=[0,nan]": "dataset.angles must be a non-empty list of finite numbers (degrees) or random, got",
    "dataset.order=[0,0]": "dataset.order must be ",
    "dataset.window=[1,1]": "dataset.window must be [first, stop] with 0 <= first < stop <= ",
    "dataset.scenario=class": "dataset.scenario must be left to the root key scenario ('domain'), got 'class'",
    "scenario=task dataset.scenario=domain": "dataset.scenario must be left to the root key scenario ('task'), got 'do",
    "dataset.active_classes=all": "dataset.active_classes must be left to the root key active_classes ('seen'), got ",
    "dataset.val_fraction=0.5": "dataset.val_fraction must be left to the root key val_fraction (0.1), got 0.5",
    "val_fraction=-0.1": "val_fraction must be a number in [0, 1), got -0.1",
    "val_fraction=0.999": "val_fraction must leave every class a training example, got 0.999",
    "dataset.source.test_fraction=2": "dataset.source.test_fraction must be a number in (0, 1), got 2",
    "dataset.angles=random": "dataset.num_tasks must be an integer in 1..10000 with dataset.angles=random, got null",
    "dataset.num_tasks=3": "dataset.num_tasks must be null with a list of angles, which has as many, got 3",
    "dataset.interpolation=bicubic": "dataset.interpolation must be one of bilinear, nearest, got 'bicubic'",
    "dataset.pad=-1": "dataset.pad must be an integer >= 0, got -1",
    "backbone.init=kaiming": "backbone.init must be one of torch, xavier, truncated_normal, got 'kaiming'",
    "active_classes=some": "active_classes must be one of seen, all, got 'some'",
    "keep_optimizer=task": "keep_optimizer must be true, false or epoch, got 'task'",
    "batch_size=0": "batch_size must be an integer >= 1, got 0",
    "num_threads=0": "num_threads must be an integer >= 1 or null, got 0",
    "checkpoint_seconds=nan": "checkpoint_seconds must be a number > 0, got nan",
    "evaluate_every_n_steps=0": "evaluate_every_n_steps must be an integer >= 1 or null, got 0",
    "evaluate_samples=0": "evaluate_samples must be an integer >= 1, got 0",
    "checkpoint_steps=0": "checkpoint_steps must be an integer >= 1 or null, got 0",
    "trainer.check_val_every_n_epoch=5": "trainer.check_val_every_n_epoch must be left out, as Lightning's",
    "trainer.limit_train_batches=0": "trainer.limit_train_batches must be an integer >= 1, a number in (0.0, 1.0] or",
    "trainer.limit_train_batches=0.3": "trainer.limit_train_batches must be an integer >= 1, or a share of an epoch "
    "that leaves a batch of the smallest task's 3, got 0.3",
    "trainer.limit_train_batches=1.5": "trainer.limit_train_batches must be an integer >= 1, a number in (0.0, 1.0] or",
    "name=../x": "name must be a folder name of letters, digits, '_', '-', '.', got '../x'",
    "strength_factor=-1": "strength_factor must be a finite number >= 0, got -1.0",
    "objectives=[average_accuracy]": "objectives must be a list of some of val_average_accuracy",
    "objectives=[]": "objectives must be a list of some of val_average_accuracy",
    "scheduler=one_cycle scheduler.pct_start=1": "scheduler.pct_start must be a number in (0, 1), got 1",
    "scheduler=one_cycle scheduler.div_factor=0": "scheduler.div_factor must be a finite number >= 1, got 0",
    "scheduler=one_cycle scheduler.final_div_factor=nan": "scheduler.final_div_factor must be a finite number >= 1",
    "scheduler=cosine +scheduler.num_steps=3": "scheduler.num_steps must not be set: the program sets it, got 3",
    "early_stopping=patience early_stopping.epochs=0": "early_stopping.epochs must be an integer >= 1, got 0",
    "early_stopping=patience early_stopping.min_delta=1": "early_stopping.min_delta must be a number in [0, 1), got 1",
    "early_stopping=patience val_fraction=0": "early_stopping must be none without validation data to watch, ",
    "memory=uniform memory.per_class=-3": "memory.per_class must be an integer >= 1 or null, got -3",
    "memory=uniform memory.total=50": "memory.per_class must be null if memory.total is set",
    "memory=uniform memory.replay=mixed": "memory.replay must be one of joined, repeated, balanced, got 'mixed'",
    "memory=entropy memory.per_class=null memory.total=9": "memory.total must be at least one for each",
    "memory=uniform memory.replay=balanced batch_size=1": "batch_size must be an integer >= 2",
    "memory=reservoir memory.total=0": "memory.total must be an integer >= 1, got 0",
    # what does not go together
    "memory=uniform method=joint seed=0": "memory must be none with method=joint, which keeps all data",
    "memory=reservoir method=joint seed=0": "memory must be none with method=joint, which keeps all data",
    **{f"method={m} seed=0": "memory must keep exemplars with " for m in ("er", "der", "derpp", "agem", "gem")},
    **{f"memory=uniform method={m} seed=0": "memory must be reservoir with " for m in ("der", "derpp")},
    "active_classes=all": "active_classes must be seen unless scenario=class, got all with scenario=domain",
    "drop_last=true batch_size=400": "drop_last must be false where 319 examples do not fill a batch of 400, got true",
    "shuffle=false memory=uniform memory.replay=balanced": "shuffle must be true with memory.replay=balanced, ",
    **{
        f"{method} scenario=class dataset.angles=[0] active_classes=all": "active_classes must be seen with "
        for method in ("method=icarl memory=uniform", "method=ewc_dr")
    },
    # arithmetic
    **{
        f"trainer.precision={p}": "trainer.precision must be one of 32-true, bf16-mixed, 16-mixed, got "
        for p in ("64-true", "bf16-true", "16-true")
    },
    "trainer.precision=16-mixed": "trainer.precision must be 32-true or bf16-mixed on a CPU (Lightning would train ",
    "trainer.precision=bf16-mixed trainer.gradient_clip_val=1": "optimizer.fused must be false with ",
    "tf32=true": "tf32 must be false on a device without TF32, got true on cpu",
    # several processes
    "trainer=ddp_cpu trainer.devices=99": "trainer.devices must be at most the number of CPU cores, ",
    "trainer=ddp_cpu batch_size=1": "batch_size must be at least 1 for each of the 2 processes, got 1",
    "trainer=ddp_cpu trainer.sync_batchnorm=true": "trainer.sync_batchnorm must be false on CPUs, where torch has none",
    "trainer=ddp_cpu trainer.num_nodes=2": "trainer.num_nodes must be 1 unless torchrun or srun starts the processes",
    **{
        f"trainer=ddp_cpu trainer.strategy={name}": "trainer.strategy must be one of auto, ddp, ddp_find_unused_"
        "parameters_true: importance needs the whole weights on every device"
        for name in ("fsdp", "ddp_spawn")
    },
    "+trainer.strategy=fsdp": "trainer.strategy must be one of auto, ddp, ",
    "rank_timeout_seconds=0": "rank_timeout_seconds must be a finite number > 0, got 0.0",
    # from elsewhere: a name below lifelong, and a class or a function of another package
    "method._target_=lifelong.config.schema.DictConfig": "method._target_ must start with lifelong., torch., ",
    "method._target_=lifelong.runs.folder.json.loads": "method._target_ must start with lifelong., torch., ",
    "method._target_=lifelong.methods.ewc.EWCC": "method._target_ 'lifelong.methods.ewc.EWCC' cannot be used: ",
    "+method.exclude=[{_target_:os.system}]": "method.exclude.0 must be a value, not a _target_ of its own",
}
"""A value put into a composed configuration, which is five times as fast; before it overrides."""


@pytest.mark.parametrize("override", REFUSALS)
def test_bad_setting_is_one_line_that_names_key_value_and_what_is_allowed(override: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    line = refused(command(*TINY, f"root={root}", *override.split()))
    assert line.startswith(REFUSALS[override])
    assert not root.exists()


@pytest.mark.parametrize("setting", VALUES)
def test_value_that_is_not_allowed_is_refused_before_anything_is_written(setting: str, tmp_path: Path) -> None:
    *overrides, last = setting.split()
    override = OverridesParser.create().parse_override(last)
    config = composed_tiny(tmp_path / "runs", *overrides)
    OmegaConf.update(config, override.key_or_group, override.value(), force_add=True)
    with pytest.raises(ConfigError) as error:
        run_experiment(config)
    assert str(error.value).startswith(VALUES[setting])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optimizer=sgd optimizer.nesterov=true", "optimizer.nesterov", True),
        ("trainer.fast_dev_run=true", "trainer.fast_dev_run", True),
        ("name=été", "name", "été"),
        ("~logger", "logger", {}),
        ("method=si method.damping=0.1", "method.damping", 0.1),
        ("rerun=yes", "rerun", True),
        ("dataset={order:[1,0]}", "dataset.order", [1, 0]),
    ],
)
def test_what_is_clear_is_accepted(override: str, key: str, value: Any) -> None:
    assert OmegaConf.select(composed(override.split()), key) == value


def test_one_source_beside_several_is_refused() -> None:
    with pytest.raises(ConfigError) as error:
        check(composed(["dataset=domains", "+dataset.source.path=elsewhere"]))
    message = "dataset.source must be left out where dataset.sources has the sources, got path"
    assert str(error.value) == message


def test_optimizer_that_asks_for_several_gradients_a_step_is_refused(tmp_path: Path) -> None:
    own = ["optimizer._target_=torch.optim.LBFGS", "~optimizer.fused", "method=si"]
    line = refused(command(*TINY, f"root={tmp_path}/runs", *own))
    assert line == (
        "optimizer must be one whose step takes the gradient that is there, got LBFGS, whose step computes several "
        "gradients"
    )


def test_augmentation_of_features_is_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", inputs=np.zeros((40, 8), np.float32), labels=np.arange(40) % 4)
    with pytest.raises(ConfigError, match=r"^augment takes images alone, uint8 .* got float32 .8,. of source f$"):
        lifelong.run(
            *("dataset=split", "dataset/source=arrays", f"dataset.source.path={tmp_path}/f.npz", "augment=affine"),
            *("logger=none", "trainer=cpu", f"root={tmp_path}/runs"),
        )


def test_scenario_that_an_entry_by_method_lacks_is_named() -> None:
    with pytest.raises(InterpolationResolutionError) as error:
        check(composed(["experiment=vandeven2022_split", "scenario=foo"]))
    assert explain(error.value) == "scenario must be one of task, domain, class here, got 'foo'"


def test_sweep_of_an_experiment_that_does_not_start_is_told(tmp_path: Path) -> None:
    said = command("experiment=homework", "seed=-1", f"root={tmp_path}")
    note = "note: experiment=homework sweeps over method with --multirun (-m); this is one run of it\n"
    assert said.err.startswith(note)
    assert not command("experiment=homework", "method=ewc", "seed=-1", f"root={tmp_path}").err.startswith("note")


@pytest.mark.parametrize(
    ("swept", "key"), [("experiment=homework,permuted", "method"), ("sweep=seeds,methods", "(seed|method)")]
)
def test_sweeps_that_go_over_keys_of_their_own_are_refused_one_after_the_other(
    swept: str, key: str, tmp_path: Path
) -> None:
    said = command("-m", *TINY, f"root={tmp_path / 'runs'}", swept)
    assert said.code == 1
    errors = said.err.splitlines()
    line = rf"error: .*: experiment and sweep must be one at a time, as \w+=\w+ sweeps itself over {key}"
    assert len(errors) == 2
    assert all(re.fullmatch(line, error) for error in errors)
    assert not list(tmp_path.rglob("config.yaml"))


def test_python_is_told_the_same_as_the_command_line(tmp_path: Path) -> None:
    for override in ("metod=ewc", "method=ewcc", "seed"):
        with pytest.raises(ConfigError) as error:
            lifelong.run(*TINY, f"root={tmp_path}", override)
        assert str(error.value).startswith(REFUSALS[override])


# Sources ------------------------------------------------------------------------------------------------------------


FAILING = {
    "cut_off": EOFError("Compressed file ended before the end-of-stream marker was reached"),
    "absent": FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/data/images"),
    "uninstalled": ImportError("No module named 'datasets'"),
}


def failing(name: str) -> Source:
    raise FAILING[name]


@pytest.mark.parametrize("name", FAILING)
def test_source_that_cannot_be_read_is_one_line(name: str, tmp_path: Path) -> None:
    target = (f"dataset.source._target_={__name__}.failing", f"+dataset.source.name={name}", f"trusted=[{__name__}]")
    settings = ("dataset/source=digits", "~dataset.source.test_fraction", *target)
    said = command(*settings, "progress=false", f"root={tmp_path / 'runs'}")
    assert refused(said) == f"dataset.source: {FAILING[name]} (given name={name!r})"
    assert not list(tmp_path.iterdir())


def test_trusted_adds_a_prefix(tmp_path: Path) -> None:
    target = (f"dataset.source._target_={__name__}.failing", "+dataset.source.name=absent")
    settings = ("dataset/source=digits", "~dataset.source.test_fraction", *target, f"root={tmp_path}")
    assert refused(command(*settings)).startswith("dataset.source._target_ must start with lifelong., ")
    assert refused(command(*settings, f"trusted=[{__name__}_]")).startswith("dataset.source._target_ must start with")
    assert refused(command(*settings, f"trusted=[{__name__}]")).startswith("dataset.source: ")
