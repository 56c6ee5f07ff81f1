"""Which jobs of a sweep train as one stack, and why others do not."""

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pkgutil import resolve_name
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch.optim import SGD, Adadelta, Adagrad, Adam, Adamax, AdamW, NAdam, RAdam, RMSprop

from lifelong.config.schema import choice
from lifelong.methods.ewc import EWC
from lifelong.methods.ewcpp import EWCPP
from lifelong.methods.joint import Joint
from lifelong.methods.l2 import L2
from lifelong.methods.mas import MAS
from lifelong.methods.method import Method
from lifelong.methods.online_ewc import OnlineEWC
from lifelong.methods.rwalk import RWalk
from lifelong.methods.scp import SCP
from lifelong.methods.si import SI
from lifelong.models.cnn import CNN
from lifelong.models.mlp import MLP
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identity
from lifelong.stacked.convolutional import Convolutional
from lifelong.stacked.network import Network
from lifelong.training.checkpoint_files import CheckpointFiles

METHODS = (Method, Joint, L2, EWC, OnlineEWC, EWCPP, MAS, SCP, SI, RWalk)
"""Those whose verbs within a task are elementwise, and the penalties' own."""
NETWORKS: dict[type, type[Network]] = {MLP: Network, CNN: Convolutional}
"""How the backbones stack that do. The residual network does not: its batch norm has a state beside the weights."""
OPTIMIZERS = (SGD, Adagrad, Adam, AdamW, Adamax, Adadelta, NAdam, RAdam, RMSprop)
"""Those whose steps are elementwise. One that looks at a whole tensor (Adafactor, LARS) would mix the members."""
NONE = ("memory", "augment", "early_stopping")
TRAINER = {"_target_", "max_epochs", "max_steps", "accelerator", "devices", "precision", "accumulate_grad_batches",
           "gradient_clip_val", "gradient_clip_algorithm"}  # fmt: skip


def reason_alone(config: DictConfig) -> str | None:
    """Why a run of this checked and folded configuration is no member of a stack, in a few words; None if it may be."""
    return next(_reasons(config), None)


def _reasons(config: DictConfig) -> Iterator[str]:
    if resolve_name(config.method._target_) not in METHODS:
        yield f"method={choice(config, 'method')} is not hosted"
    if config.method.get("schedule") == "once":
        yield "method.schedule=once"
    yield from (f"{group}={choice(config, group)}" for group in NONE if choice(config, group) != "none")
    if resolve_name(config.backbone._target_) not in NETWORKS:
        yield f"backbone={choice(config, 'backbone')} is not hosted"
    elif config.backbone.dropout:
        yield f"backbone.dropout={config.backbone.dropout}"
    if resolve_name(config.optimizer._target_) not in OPTIMIZERS:
        yield f"optimizer._target_={config.optimizer._target_} is not hosted"
    if config.backbone.get("freeze"):
        yield "backbone.freeze"
    trainer = config.trainer
    if others := sorted(map(str, trainer.keys() - TRAINER)):
        yield f"trainer.{others[0]} is not hosted"
    for key, hosted in (("devices", 1), ("precision", "32-true"), ("accumulate_grad_batches", 1)):
        if trainer[key] != hosted:
            yield f"trainer.{key}={trainer[key]}"
    yield from (key for key in ("compile", "extend", "evaluate_every_n_steps") if config[key])


def stack_key(config: DictConfig, place: tuple[int, int]) -> str:
    """What members of a stack share: all but the seed, the method and the optimiser, and their place in the stream.
    What `joint` trains on grows from task to task, so it has stacks of its own."""
    plain = identity(config)
    plain["dataset"].pop("seed", None)
    shared = {k: v for k, v in plain.items() if k not in ("seed", "method", "optimizer")}
    grows = resolve_name(config.method._target_).examples is not Method.examples
    return json.dumps([shared, grows, place], sort_keys=True)


def place(config: DictConfig, folder: RunFolder) -> tuple[int, int]:
    """How many tasks the run has finished, and how many steps of the next one it has saved.

    Raises:
        RunFolderError: its checkpoint is of another configuration or version of the code.
    """
    found = CheckpointFiles(folder.checkpoint, identity(config)).read()
    saved: dict[str, Any] = found[1] if found else {"record": {"task": 0}}
    return int(saved["record"]["task"]), int(saved.get("global_step", 0))


def block_key(config: DictConfig) -> str:
    """What members of a block share: the optimiser, and the method but for a strength > 0."""
    method: dict[str, Any] = OmegaConf.to_container(config.method, resolve=True)  # type: ignore[assignment]
    if "strength" in method:
        method["strength"] = method["strength"] > 0
    return json.dumps([OmegaConf.to_container(config.optimizer, resolve=True), method], sort_keys=True)


def chunks(keys: Mapping[int, str], size: int) -> list[list[int]]:
    """The jobs with these block keys as stacks of at most `size` and nearly equal length, those of a block together."""
    jobs = sorted(keys, key=lambda job: (keys[job], job))
    num = -(-len(jobs) // size)
    borders = [i * len(jobs) // num for i in range(num + 1)]
    return [jobs[a:b] for a, b in pairwise(borders)]
