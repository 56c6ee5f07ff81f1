"""A file is whole or absent, whatever happens while it is written."""

import errno
import os
from pathlib import Path

import pytest
import torch

from lifelong.runs.atomic import atomic_write, remove_leftovers

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Stop(BaseException):
    """As Ctrl-C, at the worst moment."""


def test_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path) as file:
        file.write("é")
        assert not path.exists()
    assert path.read_text(encoding="utf-8") == "é"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("call", [None, "fsync", "replace"])
@pytest.mark.parametrize("error", [Stop(), ValueError("x"), KeyError("x"), FULL])
def test_error_leaves_the_old_file_and_nothing_else_and_a_full_disk_names_it(
    error: BaseException, call: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fails(*_: object) -> None:
        raise error

    if call:
        monkeypatch.setattr(os, call, fails)
    with pytest.raises(type(error)) as raised, atomic_write(path) as file:  # noqa: PT012
        file.write("new")
        if call is None:
            fails()
    if isinstance(raised.value, OSError):
        assert (raised.value.filename, raised.value.errno) == (str(path), errno.ENOSPC)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_disk_that_is_full_for_torch_save_names_the_file_too(tmp_path: Path) -> None:
    """torch wraps what its file raises in a RuntimeError of its own."""
    path = tmp_path / "a.pt"
    with (
        open("/dev/full", "wb", buffering=0) as full,
        pytest.raises(OSError, match="No space left on device") as error,
        atomic_write(path, "wb"),
    ):
        torch.save(torch.zeros(1000), full)
    assert error.value.filename == str(path)
    assert not os.listdir(tmp_path)


def test_leftovers_of_killed_processes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".last.ckpt.123.tmp", ".a.txt.9.tmp", "last.ckpt", ".lock", "a.tmp"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".lock", "a.tmp", "last.ckpt"]
