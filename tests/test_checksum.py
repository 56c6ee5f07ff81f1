"""A file with a checksum shows whichever byte changed, and no file runs code when it is read."""

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.run import load
from lifelong.runs import checksum
from lifelong.runs.checksum import load_with_checksum, save_with_checksum
from lifelong.runs.folder import DamagedError, RunFolderError
from runs import run


def save(value: dict[str, Any], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb+") as file:
        save_with_checksum(value, file)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return save({"weights": torch.arange(8.0), "steps": 3}, tmp_path / "small.pt")


@pytest.mark.parametrize("block_bytes", [7, checksum.BLOCK_BYTES])
def test_file_is_read_back_by_us_and_by_torch(block_bytes: int, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checksum, "BLOCK_BYTES", block_bytes)
    for saved in (load_with_checksum(small), torch.load(small, weights_only=True)):
        assert torch.equal(saved["weights"], torch.arange(8.0))
        assert saved["steps"] == 3


def test_any_flipped_byte_is_seen(small: Path) -> None:
    """Also one of the archive's own, which neither torch nor a check of the tensors' sums would see."""
    data = bytearray(small.read_bytes())
    for i in range(len(data)):
        data[i] ^= 1 << i % 8
        small.write_bytes(data)
        with pytest.raises(DamagedError):
            load_with_checksum(small)
        data[i] ^= 1 << i % 8


def test_any_missing_or_added_end_is_seen(small: Path) -> None:
    data = small.read_bytes()
    for changed in (*(data[:length] for length in range(len(data))), data + b"\n"):
        small.write_bytes(changed)
        with pytest.raises(DamagedError):
            load_with_checksum(small)


class Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writes", [torch.save, lambda value, file: file.write(pickle.dumps(value))])
def test_file_that_would_run_code_is_refused_and_runs_none(
    writes: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the right checksum: anyone can compute one."""
    monkeypatch.setattr(checksum.torch, "save", writes)
    made = tmp_path / "made"
    path = save({"weights": Malicious(made)}, tmp_path / "last.ckpt")
    with pytest.raises(RunFolderError, match="holds more than tensors and plain values") as error:
        load_with_checksum(path)
    assert "\n" not in str(error.value)
    assert not made.exists()
    with suppress(RuntimeError):  # a bare pickle is not torch's, which is seen once it has run
        torch.load(path, weights_only=False)
    assert made.exists()  # it would have


def test_weights_that_would_run_code_are_refused_by_load(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs").folder
    save({"state_dict": Malicious(tmp_path / "made")}, folder / "model.pt")
    with pytest.raises(RunFolderError, match="nothing in it was run"):
        load(folder)
    assert not (tmp_path / "made").exists()
