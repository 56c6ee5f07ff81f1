"""Run the notebooks and write their outputs into them: python scripts/notebooks.py [PATH ...]."""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

from lifelong.experiment.errors import one_line_errors

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of a run in `folder`, but without what differs from run to run: times, versions."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=None, record_timing=False, coalesce_streams=True, resources=resources).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main(paths: list[Path]) -> None:
    for path in paths:
        with TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        print(f"written: {path}")


if __name__ == "__main__":
    with one_line_errors():
        main([Path(name) for name in sys.argv[1:]] or NOTEBOOKS)
