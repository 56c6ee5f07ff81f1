"""Notebooks ask what they promise to answer, hold outputs that are worth reading, and run: cells assert their text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from notebooks import NOTEBOOKS, executed

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


@each_notebook
def test_outputs_are_there_and_tell_nothing_of_the_machine(path: Path) -> None:
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["metadata"] == {} for cell in code)
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = [output.get("data", {}).pop("image/png", None) for output in outputs]
    assert any(pictures)
    assert all(o["output_type"] in ("display_data", "execute_result") or o["name"] == "stdout" for o in outputs)
    assert not re.search(r"/(home|root|tmp|Users|usr)/| at 0x[0-9a-f]+|\\r", json.dumps(outputs))


@each_notebook
def test_nothing_is_downloaded_or_logged_elsewhere(path: Path) -> None:
    code = "\n".join(map(text, cells(path, "code")))
    assert all(part in code for part in ('"logger=none"', '"dataset/source=digits"', "assert "))


def test_every_question_is_a_heading_and_every_method_that_weighs_is_beside_its_formula() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_forgetting", "02_methods", "03_sweep_report"]
    headings = [text(cell).split()[1] for cell in cells(NOTEBOOKS[0], "markdown")]
    assert headings[1:] == [f"Q{k}" for k in range(1, 11)]
    sections = [text(cell) for cell in cells(NOTEBOOKS[1], "markdown") if "\n\n$" in text(cell)]
    shown = [section.splitlines()[0].removeprefix("## ") for section in sections]
    assert shown == ["EWC", "Online EWC", "EWC++", "MAS", "SI", "RWalk", "SCP"]


@pytest.mark.system
@pytest.mark.timeout(1800)
@each_notebook
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    executed(path, tmp_path)
