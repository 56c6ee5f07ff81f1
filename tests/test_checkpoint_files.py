"""Two checkpoints are kept: one is whole at any moment, damage is seen wherever it lies, a stranger's is refused."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment.run import Result
from lifelong.runs.checksum import load_sealed, save_sealed
from lifelong.runs.folder import RunFolderError
from lifelong.training import checkpoint_files
from lifelong.training.checkpoint_files import FORMAT, CheckpointFiles, difference
from runs import assert_same_run, at_every_batch, run

SETTINGS = ("method=ewc", "backbone.dropout=0.2", "checkpoint_steps=2")


class Killed(BaseException):
    """As kill -9."""


def raising(*_: Any, **__: Any) -> Any:
    raise Killed


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.experiment.result.draw", lambda *_: None)


# Rotation -----------------------------------------------------------------------------------------------------------


def steps_of(files: CheckpointFiles) -> tuple[str, int]:
    found = CheckpointFiles(files.last, {}).read()
    assert found is not None
    return found[0].name, found[1]["step"]


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt", {})
    assert files.read() is None
    assert not files.exist
    for step in range(3):
        files.write({"step": step})
    assert load_sealed(files.last)["step"] == 2
    assert load_sealed(files.previous)["step"] == 1
    assert sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]


@pytest.mark.parametrize(
    ("call", "number", "kept"),
    [("fsync", 0, ("last.ckpt", 1)), ("replace", 0, ("last.ckpt", 1)), ("replace", 1, ("previous.ckpt", 1))],
)
@pytest.mark.parametrize("error", [Killed(), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_one_is_whole_wherever_the_writing_ends(
    error: BaseException, call: str, number: int, kept: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, original, calls = CheckpointFiles(tmp_path / "last.ckpt", {}), getattr(os, call), []
    for step in range(2):
        files.write({"step": step})

    def ends(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number + 1:
            raise error
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, ends)
        with pytest.raises(type(error)):
            files.write({"step": 2})
    assert steps_of(files) == kept
    again = CheckpointFiles(files.last, {})
    again.read()
    again.write({"step": 3})
    assert steps_of(files) == ("last.ckpt", 3)
    assert load_sealed(files.previous)["step"] in (0, 1)


def test_damaged_checkpoint_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    files = CheckpointFiles(tmp_path / "last.ckpt", {})
    for step in range(2):
        files.write({"step": step})
    files.last.write_bytes(files.last.read_bytes()[:-1])
    again = CheckpointFiles(files.last, {})
    assert again.read() is not None
    again.write({"step": 7})
    assert (load_sealed(files.last)["step"], load_sealed(files.previous)["step"]) == (7, 0)


# Damaged ------------------------------------------------------------------------------------------------------------


def flipped(data: bytes) -> bytes:
    """One bit in the midst of a tensor: torch.load alone does not see it."""
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda data: data[: len(data) // 2],
    "without its end": lambda data: data[:-1],
    "of another kind": lambda _: b"something else " * 100,
    "flipped": flipped,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("whole"), *SETTINGS)


@pytest.fixture(scope="module")
def killed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Killed at step 11: last.ckpt is of step 10, previous.ckpt of step 8."""
    root = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, lambda _, done: raising() if done == 11 else None)
        with pytest.raises(Killed):
            run(root, *SETTINGS)
    return next(root.rglob("last.ckpt")).parent


@pytest.fixture
def folder(killed_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed_folder, tmp_path / "default" / killed_folder.name))


def resumed_at(folder: Path) -> tuple[list[int], Result]:
    """The steps the same command still took."""
    steps: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, lambda _, done: steps.append(done))
        return steps, run(folder.parent.parent, *SETTINGS)


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_said_in_one_line_and_the_one_before_is_used(
    damage: str, folder: Path, whole: Result, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder / "last.ckpt"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    steps, result = resumed_at(folder)
    assert steps == [9, 10, 11, 12]
    assert_same_run(result, whole)
    said = capfd.readouterr().err
    assert said.startswith(f"{path} is damaged (")
    assert said.endswith("): previous.ckpt, the one before, is used\n")
    assert said.count("\n") == 1


def test_if_both_are_damaged_the_run_starts_over_and_says_so(
    folder: Path, whole: Result, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("last.ckpt", "previous.ckpt"):
        (folder / name).write_bytes(flipped((folder / name).read_bytes()))
    steps, result = resumed_at(folder)
    assert steps[0] == 1
    assert_same_run(result, whole)
    said = capfd.readouterr().err
    assert "last.ckpt is damaged (wrong check sum); " in said
    assert said.endswith("previous.ckpt is damaged (wrong check sum): the run starts over\n")
    assert said.count("\n") == 1


def test_killed_between_the_two_renames_goes_on_from_the_one_before(folder: Path, whole: Result) -> None:
    (folder / "previous.ckpt").unlink()
    (folder / "last.ckpt").rename(folder / "previous.ckpt")
    steps, result = resumed_at(folder)
    assert steps[0] > 6
    assert_same_run(result, whole)


def test_history_that_lost_its_end_is_said_and_not_made_up(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As after a power failure; what is missing is not filled with zeros."""
    history = folder / "history.jsonl"
    history.write_bytes(history.read_bytes()[:200])
    _, result = resumed_at(folder)
    assert "history.jsonl is shorter than when the checkpoint was written: rows are missing" in capfd.readouterr().err
    assert b"\0" not in (result.folder / "history.jsonl").read_bytes()


# A stranger's -------------------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(folder: Path, *settings: str) -> str:
    """The one line; nothing on disk is changed by it, but that error.txt tells of it."""
    (folder / "error.txt").unlink(missing_ok=True)
    before = contents(folder)
    with pytest.raises(RunFolderError) as error:
        run(folder.parent.parent, *SETTINGS, *settings)
    assert before == {name: data for name, data in contents(folder).items() if name != "error.txt"}
    assert "\n" not in str(error.value)
    return str(error.value).removesuffix(
        ": the run is not continued (to start over delete last.ckpt and previous.ckpt)"
    )


def test_checkpoint_of_another_configuration_is_refused_and_says_what_differs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's name is a hash of the configuration, so this one was copied or renamed."""
    monkeypatch.setattr("lifelong.experiment.run.identifier", lambda _: folder.name)
    assert refused(folder, "method.strength=10") == (
        f"{folder / 'last.ckpt'} was written with method.strength=1000, now 10"
    )
    assert refused(folder, "seed=1", "batch_size=64").endswith(
        "batch_size=128, now 64; dataset.seed=0, now 1; seed=0, now 1"
    )
    (folder / "last.ckpt").unlink()
    assert refused(folder, "method=l2").startswith(f"{folder / 'previous.ckpt'} was written with method._target_=")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("__version__", "0.9.0", "by lifelong 0.1.0, now 0.9.0"), ("FORMAT", 99, f"in format {FORMAT}, now 99")],
)
def test_checkpoint_of_another_version_is_refused(
    name: str, value: Any, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, name, value)
    assert refused(folder) == f"{folder / 'last.ckpt'} was written {said}"


def rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    saved = load_sealed(path)
    change(saved)
    with open(path, "wb") as file:
        save_sealed(saved, file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["callbacks"]["EWC"].pop("anchor"), "holds a penalty without anchor, which the code now has"),
        (lambda s: s["record"].update(x=1), "holds a record with x, which the code no longer has"),
        (lambda s: s["memory"].clear(), "holds a memory without cells, which the code now has"),
        (
            lambda s: s["state_dict"].update({"backbone.head.bias": torch.zeros(3)}),
            "holds weights with backbone.head.bias (3,), now (10,)",
        ),
        (lambda s: s.pop("origin"), "was written by lifelong of an unknown version, now 0.1.0"),
    ],
)
def test_checkpoint_of_another_layout_is_refused(change: Callable[[Any], Any], said: str, folder: Path) -> None:
    rewritten(folder / "last.ckpt", change)
    assert refused(folder) == f"{folder / 'last.ckpt'} {said}"


def test_checkpoint_between_tasks_of_another_layout_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        at_every_batch(patch, lambda _, done: raising() if done == 7 else None)
        with pytest.raises(Killed):
            run(tmp_path)
    path = next(tmp_path.rglob("last.ckpt"))
    rewritten(path, lambda saved: saved["penalty"].pop("importance"))
    with pytest.raises(RunFolderError, match="holds a penalty without importance, which the code now has"):
        run(tmp_path)


def test_what_is_not_the_run_itself_may_change(folder: Path, whole: Result) -> None:
    """Where it lies, how it is watched, and the code between two versions."""
    result = run(folder.parent.parent, *SETTINGS[:2], "checkpoint_steps=3", "checkpoint_seconds=7")
    assert torch.equal(result.matrix, whole.matrix)


def test_difference_names_three_keys_and_counts_the_rest() -> None:
    now = {"version": "1", "format": 1, "config": {"a": 1, "b": 2, "c": float("nan"), "d": 4, "e": 5}}
    assert difference(now, {**now, "config": {**now["config"], "c": float("nan")}}) is None  # type: ignore[dict-item]
    then = {**now, "config": {"b": 3, "c": 4.0, "d": 5, "e": 6}}
    assert difference(then, now) == "with a=(not there), now 1; b=3, now 2; c=4.0, now nan; 2 more"
