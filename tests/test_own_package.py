"""docs/own.md: a method, a backbone and data of one's own, from a package outside of this repository."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "own.md"


@pytest.mark.smoke
def test_the_pages_package_runs_from_a_folder_of_its_own(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = re.findall(r"^`(my_package/\S+)`\n\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(files) == 6
    for name, content in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    (line,) = re.findall(r"^python (-m lifelong .*)$", text, re.MULTILINE)
    said = subprocess.run(
        [sys.executable, *shlex.split(line), "progress=false"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    (metrics,) = (json.loads(path.read_text()) for path in tmp_path.glob("runs/default/*/metrics.json"))
    assert (metrics["method"], metrics["source"], metrics["num_tasks"]) == ("winner", "words", 2)
    assert metrics["average_accuracy"] > 0.9  # each task's words tell its classes apart
