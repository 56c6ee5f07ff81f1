"""A file of torch.save: whatever changed in it is seen, and none runs code when it is read."""

import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from grids import grid
from lifelong.experiment.load import load
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import DamagedError, RunFolderError
from runs import run

SAVED = {"weights": torch.arange(8.0), "steps": 3}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    torch.save(SAVED, tmp_path / "small.pt")
    return tmp_path / "small.pt"


@pytest.mark.parametrize("bit", grid(range(8), [0, 5]))
def test_file_with_a_flipped_bit_is_refused_or_means_the_same(bit: int, small: Path) -> None:
    """Such as a date or padding of the archive; of the tensor and of what describes it every bit is seen."""
    assert str(load_with_checksum(small)) == str(SAVED)
    data, num_seen = bytearray(small.read_bytes()), 0
    for i in range(len(data)):
        data[i] ^= 1 << bit
        small.write_bytes(data)
        try:
            assert str(load_with_checksum(small)) == str(SAVED), i
        except DamagedError:
            num_seen += 1
        data[i] ^= 1 << bit
    assert num_seen > len(data) / 2


def test_file_that_was_cut_off_is_damaged_at_any_length(small: Path) -> None:
    data = small.read_bytes()
    for length in range(len(data)):
        small.write_bytes(data[:length])
        with pytest.raises(DamagedError):
            load_with_checksum(small)


class Malicious:
    """Makes a folder when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (torch.save, "holds more than tensors and plain values"),
        (lambda value, path: path.write_bytes(pickle.dumps(value)), "is damaged"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_file_that_would_run_code_is_refused_and_runs_none(
    write: Callable[..., Any], said: str, tmp_path: Path
) -> None:
    made, path = tmp_path / "made", tmp_path / "last.ckpt"
    write({"weights": Malicious(made)}, path)
    with pytest.raises(RunFolderError, match=said) as error:
        load_with_checksum(path)
    assert "\n" not in str(error.value)
    assert not made.exists()
    with suppress(RuntimeError):  # a bare pickle is not torch's, which is seen once it has run
        torch.load(path, weights_only=False)
    assert made.exists()  # it would have


def test_weights_that_would_run_code_are_refused_by_load(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs").folder
    torch.save({"state_dict": Malicious(tmp_path / "made")}, folder / "model.pt")
    with pytest.raises(RunFolderError, match="nothing in it was run"):
        load(folder)
    assert not (tmp_path / "made").exists()
