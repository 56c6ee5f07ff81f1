"""Files that are whole or absent: written beside their place, flushed to disk, then renamed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, mode: str = "w", keep_as: Path | None = None) -> Iterator[IO]:
    """Open a temporary file that takes the place of `path` when the block ends without an error.

    mode: "w" or "wb". keep_as: the new name of the old file; between the two renames it has
    this name alone.

    Raises:
        OSError: full disk, no permission …, always with `path` as its file name.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if keep_as is not None:
            os.replace(path, keep_as)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save wraps it in a RuntimeError
        if isinstance(cause, OSError) and cause.errno is not None:
            raise OSError(cause.errno, cause.strerror, str(path)) from error
        raise


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of processes that were killed while writing; nobody may be writing now."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)
