"""The joint run that intransigence is measured against: found among finished runs, or trained once for all.

Forward transfer needs no other run: each run tests its own random initialisation first.
"""

import copy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from lifelong.config.groups import CONFIGS
from lifelong.experiment.result import Result, read_result, val_matrix
from lifelong.metrics import intransigence
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identifier


@dataclass(frozen=True)
class Reference:
    """What the joint run reached on task k after tasks 1..k.

    Attributes:
        run_id: of the joint run.
        test, val: (T,) float64; val None without validation data.
    """

    run_id: str
    test: Tensor
    val: Tensor | None

    @classmethod
    def of(cls, joint: Result) -> "Reference":
        val = val_matrix(joint.folder)
        return cls(joint.folder.name, joint.matrix.diagonal(), None if val is None else val.diagonal())


def reference_config(config: DictConfig) -> DictConfig:
    """The same stream, backbone, optimiser and seed, learned jointly."""
    joint: DictConfig = copy.deepcopy(config)
    for group, name in (("method", "joint"), ("memory", "none")):
        joint[group] = OmegaConf.load(CONFIGS / group / f"{name}.yaml")
        joint.choices[group] = name
    joint.reference, joint.rerun, joint.progress = "off", False, False
    return joint


def find_reference(config: DictConfig, learn: Callable[[DictConfig], Result]) -> Reference | None:
    """The reference of a run, from any folder below root; else `learn` trains it, beside the run.

    None for the joint run itself; None, too, and a line on stderr, if that fails: the run does not depend on it.
    """
    joint = reference_config(config)
    name = identifier(joint)
    if name == identifier(config):
        return None
    finished = sorted(Path(config.root).glob(f"**/{name}/metrics.json"))
    try:
        if finished:
            return Reference.of(read_result(RunFolder(finished[0].parent)))
        print(f"reference for intransigence: {Path(joint.root) / joint.name / name}", flush=True)
        return Reference.of(learn(joint))
    except Exception as error:
        print(f"no reference for intransigence: {error}", file=sys.stderr)
        return None


def compared(result: Result, reference: Reference) -> Result:
    """The finished run with its intransigence, in metrics.json too."""
    folder = RunFolder(result.folder)
    val = val_matrix(result.folder)
    measures: dict[str, Any] = {
        "intransigence": intransigence(result.matrix, reference.test).item(),
        "val_intransigence": (
            torch.nan if val is None or reference.val is None else intransigence(val, reference.val).item()
        ),
        "reference": reference.run_id,
    }
    folder.write_metrics({**result.metrics, **measures})
    return replace(result, metrics=folder.read_metrics())
