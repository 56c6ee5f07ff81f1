"""Notebooks ask what they promise to answer, hold outputs that are worth reading, and run: cells assert their text."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = {path.stem: path for path in (Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb")}


def cells(name: str, kind: str) -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_there_are_three() -> None:
    assert sorted(NOTEBOOKS) == ["01_forgetting", "02_methods", "03_sweep_report"]


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_outputs_are_there_and_tell_nothing_of_the_machine(name: str) -> None:
    code = cells(name, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    pictures = [output.get("data", {}).pop("image/png", None) for output in outputs]
    assert any(pictures)
    for output in outputs:
        assert output["output_type"] in ("display_data", "execute_result") or output["name"] == "stdout"
    assert not re.search(r"/(home|root|tmp|Users|usr)/| at 0x[0-9a-f]+|\\r", json.dumps(outputs))


@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_nothing_is_downloaded_or_logged_elsewhere(name: str) -> None:
    code = "\n".join(map(text, cells(name, "code")))
    assert '"logger=none"' in code
    assert '"dataset/source=digits"' in code
    assert "assert " in code


def test_every_question_is_a_heading() -> None:
    headings = [text(cell).splitlines()[0] for cell in cells("01_forgetting", "markdown")]
    assert [heading.split()[1] for heading in headings[1:]] == [f"Q{k}" for k in range(1, 11)]


def test_every_method_that_weighs_is_shown_beside_its_formula() -> None:
    sections = [text(cell) for cell in cells("02_methods", "markdown") if "\n\n$" in text(cell)]
    shown = [section.splitlines()[0].removeprefix("## ") for section in sections]
    assert shown == ["EWC", "Online EWC", "EWC++", "MAS", "SI", "RWalk", "SCP"]


@pytest.mark.system
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", sorted(NOTEBOOKS))
def test_notebook_runs(name: str, tmp_path: Path) -> None:
    import nbclient
    import nbformat

    notebook = nbformat.read(NOTEBOOKS[name], as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3", resources=resources).execute()
