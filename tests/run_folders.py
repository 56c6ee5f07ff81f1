"""Run folders as a run leaves them, written without training: their numbers are the test's own."""

import copy
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from lifelong.config.schema import choice, compose
from lifelong.metrics import measures
from lifelong.runs.folder import run_id
from lifelong.runs.identity import identifier, identity

NAMES = ("rot0", "rot30", "rot60")
STEPS = 10


PLAIN = ("seed=", "method.strength=")
"""Overrides that choose no yaml."""
composed_once = functools.cache(lambda *overrides: compose(["dataset/source=digits", "logger=none", *overrides]))


def composed(*overrides: str) -> DictConfig:
    """The run's configuration; those that differ in plain values alone are composed once, as this takes a while."""
    config = copy.deepcopy(composed_once(*(o for o in overrides if not o.startswith(PLAIN))))
    config.merge_with_dotlist([o for o in overrides if o.startswith(PLAIN)])
    return config


def matrix(learned: float, forgets: float, num_tasks: int) -> list[list[float]]:
    """(T, T): every task reaches `learned` and loses `forgets` with each later one; 0.1 before it is learned."""
    return [
        [max(0.0, learned - forgets * (i - j)) if j <= i else 0.1 for j in range(num_tasks)] for i in range(num_tasks)
    ]


def finished(
    root: Path,
    *overrides: str,
    learned: float = 0.9,
    forgets: float = 0.1,
    names: Sequence[str] = NAMES,
    steps: int = STEPS,
    within: bool = False,
    **metrics: Any,
) -> Path:
    """A finished run; `metrics` replace or add to those of its matrix. within: it has accuracies within tasks."""
    path = unfinished(root, *overrides)
    config = composed(*overrides)
    R = matrix(learned, forgets, len(names))
    header, *lines = [list(names), *R]
    (path / "accuracy_matrix.csv").write_text("".join(",".join(map(str, line)) + "\n" for line in (header, *lines)))
    rows = [
        {"step": i * steps + step, "task": i, **{kind + names[j]: R[i][j] * step / steps for j in range(i + 1)}}
        for kind in ("val/accuracy/", *["within/"] * within)
        for i in range(len(names))
        for step in (steps // 2, steps)
    ]  # fmt: skip
    (path / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = measures(torch.tensor(R, dtype=torch.float64), torch.full((len(names),), 0.1, dtype=torch.float64))
    stream = {key: value for key, value in identity(config).items() if key not in ("method", "memory")}
    text = {
        **found, "val_average_accuracy": found["average_accuracy"], "method": choice(config, "method"),
        "strength": config.method.get("strength"), "memory": choice(config, "memory"),
        "dataset": choice(config, "dataset"), "source": "digits", "scenario": config.scenario, "order": [0, 1, 2],
        "cycles": 1, "seed": config.seed, "run_id": path.name,
        "stream": run_id("stream", stream), "method_code": "a" * 64,
        "train_seconds": 3.0, "importance_seconds": 0.5, "memory_seconds": 0.0, "evaluation_seconds": 1.0,
        "peak_memory_bytes": 5e8, "method_state_bytes": 2e6, "memory_bytes": 0, "device": "cpu: test",
        **metrics,
    }  # fmt: skip
    (path / "metrics.json").write_text(json.dumps({key: value for key, value in text.items() if value is not ...}))
    return path


def finished_as(place: Path, config: DictConfig, **metrics: Any) -> Path:
    """A finished run of this very configuration, in `place` by its run id."""
    name = identifier(config)
    made = finished(place, f"method={choice(config, 'method')}", f"seed={config.seed}", run_id=name, **metrics)
    (made / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    return made.rename(place / name)


def unfinished(root: Path, *overrides: str) -> Path:
    """A run that has begun: nothing but its configuration."""
    path = root / f"run{len(list(root.iterdir())) if root.exists() else 0:03}"
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(OmegaConf.to_yaml(composed(*overrides), resolve=True))
    return path


def failed(root: Path, *overrides: str, reason: str = "DivergedError: train/loss is nan") -> Path:
    path = unfinished(root, *overrides)
    (path / "error.txt").write_text(f"{reason}\nmore\n")
    return path
