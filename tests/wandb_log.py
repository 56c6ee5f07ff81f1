"""Reads a .wandb file back: LevelDB's log format, blocks of 32 KiB, records of the type wandb_internal_pb2.Record."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, MAGIC, HEADER = 32768, 7, 7
FULL, FIRST, LAST = 1, 2, 4


def records(path: Path, patience: float = 20.0) -> list[Any]:
    """All records; waits for the last one, the run's exit: W&B's own process writes it a little after finish()."""
    deadline = monotonic() + patience
    while True:
        found = list(_records(path))
        if any(r.WhichOneof("record_type") == "exit" for r in found) or monotonic() > deadline:
            return found
        sleep(0.02)


def _records(path: Path) -> Iterator[Any]:
    data, at, parts = path.read_bytes(), MAGIC, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        part = data[at + HEADER : at + HEADER + length]
        parts = part if kind in (FULL, FIRST) else parts + part
        at += HEADER + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record


def rows(path: Path, patience: float = 20.0) -> list[dict[str, Any]]:
    """What was logged, without W&B's own columns."""
    logged = (r.history.item for r in records(path, patience) if r.WhichOneof("record_type") == "history")
    return [{key: value for key, value in _nested(items).items() if not key.startswith("_")} for items in logged]


def summary(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(path):
        if record.WhichOneof("record_type") == "summary":
            found |= _nested(record.summary.update)
    return found


def _nested(items: Any) -> dict[str, Any]:
    """W&B takes dicts apart, {"matrix": {"path": …}} into the key (matrix, path)."""
    found: dict[str, Any] = {}
    for item in items:
        *above, key = item.nested_key or [item.key]
        node = found
        for name in above:
            node = node.setdefault(name, {})
        node[key] = json.loads(item.value_json)
    return found


def run_record(path: Path) -> Any:
    return next(r.run for r in records(path) if r.WhichOneof("record_type") == "run")
