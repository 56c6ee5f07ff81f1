"""A folder that cannot be written, is in use or would hold a secret is refused in one line; what is there stays."""

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lifelong.config.schema import ConfigError
from lifelong.experiment import run as experiment
from lifelong.experiment.run import run_experiment
from lifelong.runs.folder import RunFolder
from runs import TINY, command, composed_tiny, refused, run


def test_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("mine")
    line = refused(command(*TINY, f"root={tmp_path / 'runs'}"))
    assert line.startswith(f"run folder {tmp_path / 'runs' / 'default'}")
    assert line.endswith("cannot be written: Not a directory")
    assert (tmp_path / "runs").read_text() == "mine"


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_full_disk_while_the_history_is_written_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append = experiment.History.append

    def appending(self: Any, row: Any) -> None:
        self._file.close()
        self._file = SimpleNamespace(write=full, close=lambda: None)
        append(self, row)

    monkeypatch.setattr("lifelong.tracking.History.append", appending)
    assert refused(command(*TINY, f"root={tmp_path}")).endswith("history.jsonl: No space left on device")


def test_folder_that_is_in_use_is_refused_and_nothing_in_it_changes(tmp_path: Path) -> None:
    """flock counts by open files, so that this process can stand for another one."""
    folder = run(tmp_path).folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with RunFolder(folder).locked():
        said = command(*TINY, f"root={tmp_path}", "rerun=true")
    assert refused(said) == f"run folder {folder} is in use: another process is training this run"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert command(*TINY, f"root={tmp_path}", "rerun=true").code == 0


@pytest.mark.parametrize("typed", ["hf_0123456789", "${oc.env:HF_TOKEN}", "https://me:hf_0123456789@host"])
@pytest.mark.parametrize("more", [[], ["--multirun"]])
def test_secret_of_the_environment_is_refused_and_written_nowhere(
    typed: str, more: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    said = command(*more, *TINY, "logger=wandb", f"logger.wandb.entity='{typed}'", f"root={tmp_path / 'runs'}")
    assert said.code == 1
    assert "logger.wandb.entity must not hold the secret of HF_TOKEN" in said.err
    assert "hf_0123456789" not in said.out + said.err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"hf_0123456789" in path.read_bytes() for path in written)


def test_secret_in_a_configuration_from_python_is_refused_and_short_ones_are_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANY_KEY", "digits")
    run(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_0123456789")
    config = composed_tiny(tmp_path / "runs", "logger=wandb")
    config.logger.wandb.entity = "${oc.env:HF_TOKEN}"
    with pytest.raises(ConfigError, match="the configuration must not hold the secret of HF_TOKEN"):
        run_experiment(config)
    assert not (tmp_path / "runs").exists()
