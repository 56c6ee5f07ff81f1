"""Notebooks hold no outputs in git, ask what they promise to answer, and run: cells assert what their text says."""

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def text(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["01_forgetting", "02_methods", "03_sweep_report"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        assert cell["metadata"] == {}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_downloaded_or_logged_elsewhere(path: Path) -> None:
    code = "\n".join(map(text, cells(path, "code")))
    assert '"logger=none"' in code
    assert '"dataset/source=digits"' in code
    assert "assert " in code


def test_every_question_is_a_heading() -> None:
    headings = [text(cell).splitlines()[0] for cell in cells(NOTEBOOKS[0], "markdown")]
    assert [heading.split()[1] for heading in headings[1:]] == [f"Q{k}" for k in range(1, 11)]


def test_every_method_that_weighs_is_shown_beside_its_formula() -> None:
    sections = [text(cell) for cell in cells(NOTEBOOKS[1], "markdown") if "\n\n$" in text(cell)]
    shown = [section.splitlines()[0].removeprefix("## ") for section in sections]
    assert shown == ["EWC", "Online EWC", "EWC++", "MAS", "SI", "RWalk", "SCP"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs the extra notebooks")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra notebooks")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
    assert any("image/png" in out.get("data", {}) for cell in notebook.cells for out in cell.get("outputs", []))
