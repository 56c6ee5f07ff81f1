"""last.ckpt and previous.ckpt: the two newest checkpoints of a run, and whether they are this run's.

At any moment, also of a kill, at least one of them is whole: a new one is complete on disk before last.ckpt becomes
previous.ckpt, and a last.ckpt that was found damaged never does.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lifelong import __version__
from lifelong.distributed.ranks import is_first
from lifelong.runs.atomic import atomic_write
from lifelong.runs.checksum import load_sealed, save_sealed
from lifelong.runs.folder import DamagedError, RunFolderError

FORMAT = 3
"""Of what a checkpoint holds and means. Raise it with a change after which an older checkpoint would be misread."""
SHOWN = 3
"""Differences named in one line."""


class CheckpointFiles:
    """Writes and reads the two checkpoints.

    Args:
        last: where last.ckpt goes; previous.ckpt beside it.
        identity: what decides the run's numbers (lifelong.runs.identity), part of every checkpoint; of another one than
            the present none is taken up.
    """

    def __init__(self, last: Path, identity: Mapping[str, Any]) -> None:
        self.last, self.previous = last, last.with_name("previous.ckpt")
        self.origin = {"format": FORMAT, "version": __version__, "config": dict(_flat(identity))}
        self._last_is_whole = False

    @property
    def exist(self) -> bool:
        return self.last.exists() or self.previous.exists()

    def write(self, checkpoint: Mapping[str, Any]) -> None:
        """The newest checkpoint; the one that was it so far is kept as previous.ckpt."""
        with atomic_write(self.last, "wb", keep_as=self.previous if self._last_is_whole else None) as file:
            save_sealed({**checkpoint, "origin": self.origin}, file)
        self._last_is_whole = True

    def read(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that is whole, and its path; None if there is none. One line on stderr tells of damage.

        Raises:
            RunFolderError: it was written with another configuration or by another version of the code.
        """
        damages: list[DamagedError] = []
        found = None
        for path in filter(Path.exists, (self.last, self.previous)):
            try:
                found = path, load_sealed(path)
                break
            except DamagedError as error:
                damages.append(error)
        if damages and is_first():
            then = f"{found[0].name}, the one before, is used" if found else "the run starts over"
            print(f"{'; '.join(map(str, damages))}: {then}", file=sys.stderr)
        if found:
            self._last_is_whole = found[0] == self.last
            self._refuse_strangers(*found)
        return found

    def _refuse_strangers(self, path: Path, saved: Mapping[str, Any]) -> None:
        if found := difference(saved.get("origin", {}), self.origin):
            raise refusal(path, f"was written {found}")


def refusal(path: Path, reason: str) -> RunFolderError:
    """In one line; nothing on disk has been changed."""
    return RunFolderError(
        f"{path} {reason}: the run is not continued (to start over delete last.ckpt and previous.ckpt)"
    )


def difference(written: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """How the origin of a checkpoint differs from that of the present run, to follow "was written"; None if not."""
    if written.get("version") != now["version"]:
        return f"by lifelong {written.get('version', 'of an unknown version')}, now {now['version']}"
    if written["format"] != now["format"]:
        return f"in format {written['format']}, now {now['format']}"
    then, today = written["config"], now["config"]
    keys = [key for key in sorted(then.keys() | today.keys()) if _value(then, key) != _value(today, key)]
    if not keys:
        return None
    shown = [f"{key}={_value(then, key)}, now {_value(today, key)}" for key in keys[:SHOWN]]
    more = [f"{len(keys) - SHOWN} more"] if len(keys) > SHOWN else []
    return "with " + "; ".join(shown + more)


def _value(config: Mapping[str, Any], key: str) -> str:
    """As text: nan is nan, and 1 is not 1.0."""
    return str(config[key]) if key in config else "(not there)"


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
