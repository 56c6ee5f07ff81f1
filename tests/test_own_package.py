"""docs/own.md: a method, a backbone and data of one's own, from a package outside of this repository."""

import json
import re
import shlex
from pathlib import Path

import pytest

import analyse
import evaluate
from lifelong.config.schema import ConfigError
from lifelong.runs.folder import RunFolder
from own_options import with_search_path
from runs import command

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own.md"


def test_the_pages_package_runs_from_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"^`(my_package/\S+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(files) == 6
    for name, content in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (line,) = re.findall(r"^python -m lifelong (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as -m does
    said = command(*shlex.split(line), "progress=false")
    assert (said.code, said.err) == (0, "")
    (metrics,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/default/*/metrics.json"))
    assert (metrics["method"], metrics["source"], metrics["num_tasks"]) == ("largest", "words", 2)
    assert metrics["average_accuracy"] > 0.9  # each task's words tell its classes apart
    (folder,) = (path.parent for path in tmp_path.glob("runs/default/*/metrics.json"))
    evaluation = [f"run={folder}", "trusted=[my_package]"]
    evaluate.main(with_search_path([*evaluation, "--config-dir", "my_package/configs"]))
    (found,) = (json.loads(path.read_text()) for path in folder.glob("evaluations/*.json"))
    assert found["accuracy_per_task"] == metrics["final_accuracy_per_task"]
    own_code = evaluate.of_own_code(
        ["seed=1", *with_search_path([*evaluation[1:], "--config-dir", "my_package/configs"])]
    )
    own_stream = evaluate.stream_config(RunFolder(folder).read_config(), own_code)
    assert (own_stream.seed, own_stream.dataset.source._target_) == (0, "my_package.words.words")
    with pytest.raises(ConfigError, match=r"dataset\.source is the run's own 'words': give --config-dir"):
        evaluate.main(evaluation)
    assert analyse.main(["--trusted", "my_package", str(folder), "--measures", "plasticity"]) == 0
