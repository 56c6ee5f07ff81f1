"""Two checkpoints are kept: one is whole at any moment, damage is seen wherever it lies, a stranger's is refused."""

import errno
import math
import os
import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from grids import grid
from lifelong.experiment.run import Result
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolderError
from lifelong.training import checkpoint_files
from lifelong.training.checkpoint_files import CheckpointFiles
from runs import Killed, assert_same_run, at_every_batch, run, run_killed

pytestmark = pytest.mark.xdist_group("checkpoint files")  # whose runs are made once

SETTINGS = ("method=ewc", "backbone.dropout=0.2", "checkpoint_steps=2")


# Two generations ----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    """Steps 0 and 1 are written."""
    files = CheckpointFiles(tmp_path / "last.ckpt", {})
    assert files.read() is None
    assert not files.exist
    for step in range(2):
        files.write({"step": step})
    return files


def newest(files: CheckpointFiles) -> tuple[str, int]:
    found = CheckpointFiles(files.last, {}).read()
    assert found is not None
    return found[0].name, found[1]["step"]


def test_the_two_newest_are_kept_and_a_damaged_one_never_takes_the_place_of_a_whole_one(
    files: CheckpointFiles, tmp_path: Path
) -> None:
    files.write({"step": 2})
    assert (load_with_checksum(files.last)["step"], load_with_checksum(files.previous)["step"]) == (2, 1)
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]
    files.last.write_bytes(files.last.read_bytes()[:-1])
    assert newest(files) == ("previous.ckpt", 1)
    assert files.read() is not None
    files.write({"step": 7})
    assert (load_with_checksum(files.last)["step"], load_with_checksum(files.previous)["step"]) == (7, 1)


@pytest.mark.parametrize(
    ("call", "number", "kept"),
    [("fsync", 1, ("last.ckpt", 1)), ("replace", 1, ("last.ckpt", 1)), ("replace", 2, ("previous.ckpt", 1))],
)
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_one_is_whole_wherever_the_writing_ends(
    error: BaseException, call: str, number: int, kept: tuple[str, int], files: CheckpointFiles
) -> None:
    with (
        mock.patch.object(os, call, side_effect=chain([mock.DEFAULT] * (number - 1), [error]), wraps=getattr(os, call)),
        pytest.raises(type(error)),
    ):
        files.write({"step": 2})
    assert newest(files) == kept
    assert files.read() is not None
    files.write({"step": 3})
    assert newest(files) == ("last.ckpt", 3)
    assert load_with_checksum(files.previous)["step"] in (0, 1)


# Damaged ------------------------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    """One bit in the midst of a tensor: torch.load alone does not see it."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "of another kind": lambda _: b"something else " * 100,
    "flipped": flipped,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("whole"), *SETTINGS)


def killed_at(root: Path, step: int, *settings: str) -> Path:
    """The folder of a run that was killed in this step."""
    run_killed(root, *settings, step=step)
    return next(root.rglob("last.ckpt")).parent


@pytest.fixture(scope="module")
def killed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """last.ckpt is of step 10, previous.ckpt of step 8."""
    return killed_at(tmp_path_factory.mktemp("killed"), 11, *SETTINGS)


@pytest.fixture
def folder(killed_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed_folder, tmp_path / "default" / killed_folder.name))


def resumed(folder: Path) -> tuple[int, Result]:
    """The first step that the same command still took."""
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, lambda _, done: steps.append(done))
        result = run(folder.parent.parent, *SETTINGS)
    return steps[0], result


DAMAGED = [
    (*case, damage)
    for case in (
        (["last.ckpt"], 9, "previous.ckpt, the one before, is used"),
        (["last.ckpt", "previous.ckpt"], 1, "the run starts over"),
    )
    for damage in DAMAGES
]


@pytest.mark.parametrize(("names", "first_step", "then", "damage"), grid(DAMAGED, DAMAGED[1::3]))
def test_damage_is_said_in_one_line_and_the_checkpoint_before_is_used(
    names: list[str],
    first_step: int,
    then: str,
    damage: str,
    folder: Path,
    whole: Result,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in names:
        (folder / name).write_bytes(DAMAGES[damage]((folder / name).read_bytes()))
    step, result = resumed(folder)
    assert step == first_step
    assert_same_run(result, whole)
    damages = [f"{folder / name} is damaged (wrong checksum)" for name in names]
    assert capfd.readouterr().err == f"{'; '.join(damages)}: {then}\n"


def test_history_that_lost_its_end_is_said_and_not_made_up(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As after a power failure; what is missing is not filled with zeros."""
    history = folder / "history.jsonl"
    history.write_bytes(history.read_bytes()[:200])
    _, result = resumed(folder)
    assert "history.jsonl is shorter than when the checkpoint was written: rows are missing" in capfd.readouterr().err
    assert b"\0" not in (result.folder / "history.jsonl").read_bytes()


# A stranger's -------------------------------------------------------------------------------------------------------


def refused(folder: Path, *settings: str) -> str:
    """The one line; nothing on disk is changed by it, but that error.txt tells of it."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(RunFolderError) as error:
        run(folder.parent.parent, *SETTINGS, *settings)
    (folder / "error.txt").unlink()
    assert before == {path: path.read_bytes() for path in folder.iterdir()}
    line, end = str(error.value).split(": the run is not continued ")
    assert end == "(delete last.ckpt and previous.ckpt to start over)"
    return line


def test_checkpoint_of_another_configuration_is_refused_and_says_what_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's name is a hash of the configuration, so this one was copied or renamed."""
    monkeypatch.setattr("lifelong.experiment.run.identifier", lambda _: folder.name)
    last, previous = (f"{folder / name} was written with another" for name in ("last.ckpt", "previous.ckpt"))
    assert refused(folder, "method.strength=10") == f"{last} method"
    assert refused(folder, "seed=1", "batch_size=64") == f"{last} batch_size, dataset, seed"
    (folder / "last.ckpt").unlink()
    assert refused(folder, "method=l2") == f"{previous} method"


@pytest.mark.parametrize(("name", "value"), [("__version__", "0.9.0"), ("FORMAT", 99)])
def test_checkpoint_of_another_version_is_refused(
    name: str, value: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, name, value)
    assert refused(folder) == f"{folder / 'last.ckpt'} was written with another {name.strip('_').lower()}"


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    saved = load_with_checksum(path)
    change(saved)
    torch.save(saved, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["callbacks"]["EWC"].pop("anchor"), "holds a method without anchor, which the code now has"),
        (lambda s: s["record"].update(x=1), "holds a record with x, which the code no longer has"),
        (lambda s: s["memory"].clear(), "holds a memory without cells, which the code now has"),
        (
            lambda s: s["state_dict"].update({"backbone.head.bias": torch.zeros(3)}),
            "holds weights with backbone.head.bias (3,), now (10,)",
        ),
    ],
)
def test_checkpoint_of_another_layout_is_refused(change: Callable[[Any], Any], said: str, folder: Path) -> None:
    rewritten(folder / "last.ckpt", change)
    assert refused(folder) == f"{folder / 'last.ckpt'} {said}"


def test_checkpoint_between_tasks_of_another_layout_is_refused(tmp_path: Path) -> None:
    folder = killed_at(tmp_path, 7)
    rewritten(folder / "last.ckpt", lambda saved: saved["method"].pop("importance"))
    with pytest.raises(RunFolderError, match="holds a method without importance, which the code now has"):
        run(tmp_path)


def test_origin_is_compared_by_value(tmp_path: Path) -> None:
    """nan equals nan, the order of keys is nothing, but 1 is not 1.0 and an unknown origin is a stranger's."""
    last = tmp_path / "last.ckpt"
    CheckpointFiles(last, {"a": {"b": math.nan, "c": 1}}).write({})
    assert CheckpointFiles(last, {"a": {"c": 1, "b": math.nan}}).read() is not None
    with pytest.raises(RunFolderError, match="was written with another a:"):
        CheckpointFiles(last, {"a": {"b": math.nan, "c": 1.0}}).read()
    torch.save({}, last)
    with pytest.raises(RunFolderError, match="was written with another format, version:"):
        CheckpointFiles(last, {}).read()
