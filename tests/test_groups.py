"""Every yaml of every group composes, fits what it builds, and builds what can be built here."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.loggers import Logger
from torch import nn

from lifelong.config.build import build, factory
from lifelong.config.checks import check
from lifelong.config.groups import CONFIGS
from lifelong.config.schema import ConfigError
from lifelong.data.stream import TaskStream
from lifelong.experiment.parts import make_stream
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.tracking import About
from runs import composed_once


def listed(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


ALL = [
    f"{path.parent.relative_to(CONFIGS)}={path.stem}"
    for path in sorted(CONFIGS.rglob("*.yaml"))
    if path.parent != CONFIGS and "hydra" not in path.relative_to(CONFIGS).parts
]


def left_open(choice: str) -> list[str]:
    """Keys that have no default: ???"""
    text = (CONFIGS / f"{choice.replace('=', '/')}.yaml").read_text()
    return [line.split(":")[0] for line in text.splitlines() if line.split("#")[0].rstrip().endswith(": ???")]


@pytest.mark.parametrize("choice", ALL)
def test_choice_composes_and_passes_the_border_or_says_what_must_be_set(choice: str) -> None:
    config = composed_once((choice,))
    if not left_open(choice):
        return check(config)
    group = choice.split("=")[0].replace("/", ".")
    with pytest.raises(ConfigError) as error:
        check(config)
    assert str(error.value) in [f"{group}.{key} must be set, got nothing" for key in left_open(choice)]


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in ("method", "memory") for name in listed(group)])
def test_method_and_memory_build(group: str, name: str) -> None:
    kind = {"method": Method, "memory": Memory}[group]
    assert isinstance(build(composed_once((f"{group}={name}",))[group], group), kind)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", listed("backbone"))
def test_backbone_builds_for_grey_and_for_colour(name: str, shape: tuple[int, int, int]) -> None:
    node = composed_once((f"backbone={name}",)).backbone
    backbone = build(node, "backbone", input_shape=shape, num_classes=7)
    assert backbone(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", listed("optimizer"))
def test_optimizer_builds_steps_and_is_fused_unless_told_not_to(name: str) -> None:
    p = nn.Parameter(torch.ones(3))
    optimizer, plain = (
        factory(composed_once((f"optimizer={name}", f"optimizer.fused={fused}")).optimizer, "optimizer")([p])
        for fused in ("true", "false")
    )
    assert composed_once((f"optimizer={name}",)).optimizer.fused
    assert not plain.param_groups[0]["fused"]
    p.grad = torch.ones(3)
    optimizer.step()
    assert (p < 1).all()


@pytest.mark.parametrize("name", listed("trainer"))
def test_trainer_builds(name: str) -> None:
    if name in ("gpu", "ddp") and torch.cuda.device_count() < 1 + (name == "ddp"):
        pytest.skip("needs a CUDA device, ddp two of them")
    trainer = build(composed_once((f"trainer={name}",)).trainer, "trainer", logger=False, enable_checkpointing=False)
    assert trainer.max_epochs == 10


@pytest.mark.parametrize("name", [n for n in listed("logger") if n != "wandb"])
def test_logger_builds(name: str, tmp_path: Path) -> None:
    """wandb starts a process, and has tests of its own."""
    if name in ("tensorboard", "mlflow", "trackio"):
        pytest.importorskip(name, reason=f"needs the extra `{name}`")
    (tmp_path / "history.jsonl").write_text("")
    about = About(tmp_path, "x", "ewc λ=1", "ewc", {"root": str(tmp_path)})
    loggers = composed_once((f"logger={name}",)).logger
    assert all(isinstance(build(node, f"logger.{key}", about=about), Logger) for key, node in loggers.items())
    assert list(loggers) == [name] * (name != "none")


@pytest.mark.parametrize("name", listed("dataset"))
def test_dataset_builds_a_stream(name: str) -> None:
    """domains: of both sources that need no download."""
    sources = () if name == "domains" else ("dataset/source=digits",)
    stream = make_stream(composed_once((f"dataset={name}", *sources)))
    assert isinstance(stream, TaskStream)
    assert len(stream.task(0).train) > 0
