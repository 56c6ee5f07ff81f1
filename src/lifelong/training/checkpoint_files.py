"""last.ckpt and previous.ckpt: the two newest checkpoints of a run, and whether they are this run's.

At any moment, also of a kill, at least one of them is whole: a new one is complete on disk before last.ckpt becomes
previous.ckpt, and a last.ckpt that was found damaged never does.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lifelong import __version__
from lifelong.distributed.ranks import is_first
from lifelong.runs.atomic import atomic_write
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import DamagedError, RunFolderError

FORMAT = 3
"""Of what a checkpoint holds and means. Raise it with a change after which an older checkpoint would be misread."""


class CheckpointFiles:
    """Writes and reads the two checkpoints.

    Args:
        last: where last.ckpt goes; previous.ckpt beside it.
        identity: what decides the run's numbers (lifelong.runs.identity); a part of every checkpoint.
    """

    def __init__(self, last: Path, identity: Mapping[str, Any]) -> None:
        self.last, self.previous = last, last.with_name("previous.ckpt")
        self.origin = {"version": __version__, "format": FORMAT, **identity}
        self._last_is_whole = False

    @property
    def exist(self) -> bool:
        return self.last.exists() or self.previous.exists()

    def write(self, checkpoint: Mapping[str, Any]) -> None:
        """Write the newest checkpoint; the one before is kept as previous.ckpt."""
        with atomic_write(self.last, "wb", keep_as=self.previous if self._last_is_whole else None) as file:
            torch.save({**checkpoint, "origin": self.origin}, file)
        self._last_is_whole = True

    def read(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint and its path; None if there is none. One line on stderr tells of damage.

        Raises:
            RunFolderError: it was written with another configuration, or by another version of the code.
        """
        found, damages = None, []
        for path in filter(Path.exists, (self.last, self.previous)):
            try:
                found = path, load_with_checksum(path)
                break
            except DamagedError as error:
                damages.append(str(error))
        if damages and is_first():
            then = f"{found[0].name}, the one before, is used" if found else "the run starts over"
            print(f"{'; '.join(damages)}: {then}", file=sys.stderr)
        if found is None:
            return None
        self._last_is_whole = found[0] == self.last
        before, now = _texts(found[1].get("origin", {})), _texts(self.origin)
        if others := [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]:
            raise refusal(found[0], f"was written with another {', '.join(others)}")
        return found


def refusal(path: Path, reason: str) -> RunFolderError:
    """The error that says why a checkpoint is not continued."""
    then = "the run is not continued (delete last.ckpt and previous.ckpt to start over)"
    return RunFolderError(f"{path} {reason}: {then}")


def _texts(origin: Mapping[str, Any]) -> dict[str, str]:
    """Each value as text, by which nan equals nan."""
    return {key: json.dumps(value, sort_keys=True) for key, value in origin.items()}
