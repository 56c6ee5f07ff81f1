"""Streams, networks and ways to train that are small enough to state laws about whole runs.

`drive` calls the hooks without a Trainer, in what tests/methods/test_hooks.py shows to be Lightning's order.
"""

from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from lifelong.config.build import build
from lifelong.config.groups import CONFIGS
from lifelong.config.schema import compose
from lifelong.data.examples import Examples
from lifelong.data.loader import Batch, Batches
from lifelong.data.permuted import Permuted
from lifelong.data.source import Source
from lifelong.data.split import Split
from lifelong.data.stream import Task, TaskStream
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.methods.penalty import Penalty
from lifelong.methods.quadratic import Diagonal
from lifelong.models.learner import Learner
from lifelong.models.mlp import MLP
from lifelong.tracking import quiet_libraries
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from lifelong.training.loop import Run, run_stream

quiet_libraries()

Params = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]

INTERVAL = 3
"""Optimiser steps between updates of the methods that have an interval: a tiny task has few steps."""


@cache
def _composed(method: str) -> DictConfig:
    return compose([f"method={method}"]).method


def make_penalty(method: str, **settings: Any) -> Any:
    """The method as configs/method/ has it, with these settings changed."""
    node = _composed(method)
    if "interval" in node:
        settings = {"interval": INTERVAL, **settings}
    if "every" in node:
        settings = {"step": "gradient", "every": 1, **settings}
    return build(OmegaConf.merge(node, settings), "method")


METHODS = sorted(path.stem for path in (CONFIGS / "method").glob("*.yaml"))


def overrides(method: str) -> tuple[str, ...]:
    """The method on a command line, with the memory or the scenario that it cannot do without."""
    made = make_penalty(method)
    if getattr(made, "needs_logits", False):
        return (f"method={method}", "memory=reservoir", "memory.total=30")
    memory = ("memory=uniform", "memory.per_class=3") if made.needs_memory else ()
    return (f"method={method}", *memory, *(() if "domain" in made.scenarios else (f"scenario={made.scenarios[0]}",)))


HALVED = {"ewc", "online_ewc", "ewcpp", "ewc_dr"}
"""c = ½ for the EWC family and 1 for all others."""
PENALTIES = [method for method in METHODS if isinstance(make_penalty(method), Penalty)]
"""The methods that hold weights by a quadratic."""
HOLDING = [method for method in PENALTIES if isinstance(make_penalty(method).quadratic, Diagonal)]
"""Those whose quadratic is a diagonal, so that an Ω of each weight says all."""


# Data and networks --------------------------------------------------------------------------------------------------


def source(num_per_class: int = 30, num_classes: int = 6, seed: int = 0) -> Source:
    """8 × 8 images of blurred classes with a black frame: some inputs are always zero, so some weights never matter."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randint(0, 200, (num_classes, 1, 6, 6), generator=g)

    def part(num: int) -> Examples:
        labels = torch.arange(num_classes).repeat(num)
        images = torch.zeros(len(labels), 1, 8, 8, dtype=torch.uint8)
        noise = torch.randint(0, 56, (len(labels), 1, 6, 6), generator=g)
        images[:, :, 1:7, 1:7] = (means[labels] + noise).to(torch.uint8)
        return Examples(images, labels)

    return Source("tiny", part(num_per_class), part(10), tuple(map(str, range(num_classes))))


def split(scenario: str = "domain", **stream: Any) -> TaskStream:
    """Three tasks of two classes, 54 training samples each."""
    return Split(source(), 2, scenario=scenario, **stream)


def permuted(num_tasks: int = 3, **stream: Any) -> TaskStream:
    """The frame is not black in a later task: weights that did not matter before now do."""
    return Permuted(source(10), num_tasks, **stream)


class ConvNet(nn.Module):
    """Convolutions, batch norm and dropout: all that an importance pass could leave a trace in."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def mlp(num_classes: int) -> nn.Module:
    return MLP((1, 8, 8), num_classes, [16])


SLOW_DESCENT = partial(SGD, lr=0.05)
NETWORKS: dict[str, Callable[[int], nn.Module]] = {"mlp": mlp, "cnn": ConvNet}


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a tensor, or of nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [t for part in parts for t in tensors_in(part)]


def make_learner(stream: TaskStream, network: str = "mlp", make_optimizer: Any = SLOW_DESCENT) -> Learner:
    torch.manual_seed(1)
    return Learner(NETWORKS[network](stream.num_classes), make_optimizer, stream.num_classes, stream.groups())


def weights_of(learner: nn.Module) -> Params:
    """Copies of weights and buffers."""
    return {name: t.detach().clone() for name, t in learner.state_dict().items()}


def flat(params: Params) -> Tensor:
    return torch.cat([t.detach().flatten() for t in params.values()])


class StandIn:
    """What `drive` and a penalty ask of a learner, for a loss of one's own."""

    device = torch.device("cpu")
    visible = torch.ones(1, dtype=torch.bool)

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone


# Training -----------------------------------------------------------------------------------------------------------


def make_trainer(*callbacks: Callback, epochs: int = 1, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "use_distributed_sampler": False,
        "callbacks": list(callbacks),
    }
    return Trainer(**(settings | options))


def run(
    stream: TaskStream,
    learner: Learner,
    penalty: Method,
    folder: Path,
    *,
    memory: Memory | None = None,
    callbacks: Iterable[Callback] = (),
    on_row: Callable[[Task], None] = lambda task: None,
    seed: int = 0,
    keep_optimizer: bool = False,
    **trainer: Any,
) -> Tensor:
    """Learn the stream as train.py does; returns the accuracy matrix (T, T)."""
    run = Run(stream, learner, penalty, memory or Memory(), make_trainer, batch_size=16, seed=seed, on_row=on_row)
    run.keep_optimizer = keep_optimizer
    files = CheckpointFiles(folder / "last.ckpt", {})
    run.checkpoints = Checkpoints(files, run.record, run.memory, lambda: 0, every_seconds=1e9)
    run.make_trainer = partial(make_trainer, penalty, *callbacks, run.checkpoints, **trainer)
    return run_stream(run)


def fit(learner: Learner, penalty: Penalty, examples: Examples, *callbacks: Callback, **trainer: Any) -> None:
    """One task in a real Trainer, without what comes after it."""
    make_trainer(*callbacks, **trainer).fit(learner, Batches(examples, 16, seed=0))


def keep(learner: Learner, penalty: Penalty, examples: Examples, batch_size: int = 64) -> None:
    """What comes after a task."""
    batches = Batches(examples, batch_size, seed=0, shuffle=False)
    after_task(penalty, learner, [batch.counted for batch in batches])


def after_task(method: Method, learner: Any, batches: Iterable[Pair], seed: int = 0) -> None:
    """The verb, wired as by the loop."""
    method.learner, method.draws = learner, torch.Generator().manual_seed(seed)
    method.after_task(None, batches)  # type: ignore[arg-type]


def replaying(method: Method, memory: Memory, scenario: str = "class") -> Any:
    """The learner at the first step of the second of three tasks; the memory holds some of the first; float64."""
    stream = split(scenario)
    learner: Any = make_learner(stream).double()
    learner.as_input = lambda images: images.double() / 255
    method.memory, method.task = memory, stream.task(1)
    learner.show(stream.visible(0, 0))
    fill(memory, learner, stream.task(0))
    learner.show(stream.visible(1, 1))
    method.on_train_start(stand_in_trainer(SGD(learner.parameters(), lr=0.1), 1), learner)
    return learner


def fill(memory: Memory, learner: Any, task: Task) -> None:
    """A task's samples offered as one batch, and its end."""
    memory.offer(learner, task.train, np.arange(len(task.train)), task.index, seed=task.index)
    memory.after_task(learner, task.train, task.base, torch.Generator().manual_seed(task.index))


def vector(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors])


def named(learner: Any, flat: Tensor) -> Params:
    """The parts (P,) of a vector under the names of the parameters, shaped as they."""
    params = dict(learner.backbone.named_parameters())
    parts = flat.split([p.numel() for p in params.values()])
    return {n: part.view_as(p).clone() for (n, p), part in zip(params.items(), parts, strict=True)}


def stand_in_trainer(optimizer: Optimizer, step: int, of: int = 99) -> Any:
    """What a method asks of a Trainer."""
    loops = {"global_step": step, "current_epoch": 0, "estimated_stepping_batches": of}
    return SimpleNamespace(optimizers=[optimizer], train_dataloader=SimpleNamespace(batch_size=8), **loops)


def drive(
    penalty: Penalty, learner: Any, batches: Iterable[Pair], optimizer: Optimizer, *, step: int = 0, of: int = 99
) -> None:
    """One task of `of` steps, or from `step` > 0 on the rest of one, by hand: a batch is an optimiser step."""
    trainer = stand_in_trainer(optimizer, step, of)
    penalty.on_train_start(trainer, learner)
    for i, batch in enumerate(Batch(*pair) for pair in batches):
        penalty.on_train_batch_start(trainer, learner, batch, i)
        optimizer.zero_grad()
        loss = learner.training_step(batch, i) if isinstance(learner, Learner) else learner.loss(batch.x, batch.y)
        loss.backward()
        penalty.on_before_optimizer_step(trainer, learner, optimizer)
        optimizer.step()
    penalty.on_train_end(trainer, learner)


def random_batches(num: int, num_classes: int, seed: int = 0, size: int = 8) -> list[Pair]:
    g = torch.Generator().manual_seed(seed)
    images = torch.rand(num, size, 1, 8, 8, generator=g)
    return list(zip(images, torch.randint(0, num_classes, (num, size), generator=g), strict=True))


def learn_by_hand(penalty: Penalty, learner: Learner, task: int, *, num_steps: int = 4, lr: float = 0.05) -> None:
    """A whole task of random batches: driven, then kept."""
    batches = random_batches(num_steps, len(learner.visible), seed=task)
    drive(penalty, learner, batches, SGD(learner.parameters(), lr=lr))
    after_task(penalty, learner, batches, seed=task)


def after_two_tasks(method: str, network: str = "mlp", **settings: Any) -> tuple[Penalty, Learner]:
    penalty, learner = make_penalty(method, **settings), make_learner(split(), network)
    for task in range(2):
        learn_by_hand(penalty, learner, task)
    return penalty, learner


def moved_off(learner: Learner, seed: int = 9, size: float = 0.1) -> None:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in learner.parameters():
            p.add_(size * torch.randn(p.shape, generator=g))


def gradients_of(learner: Any) -> Params:
    zero = torch.zeros_like
    return {n: zero(p) if p.grad is None else p.grad.clone() for n, p in learner.backbone.named_parameters()}


def added_gradient(penalty: Penalty, learner: Learner) -> Params:
    """What the penalty adds to a task gradient of zero."""
    trainer = stand_in_trainer(SGD(learner.parameters()), 1)
    penalty.on_train_start(trainer, learner)
    learner.zero_grad(set_to_none=True)
    penalty.on_before_optimizer_step(trainer, learner, trainer.optimizers[0])
    penalty.on_train_end(trainer, learner)
    return gradients_of(learner)
