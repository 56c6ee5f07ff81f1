"""The notebooks as pages, with the outputs they were committed with: nothing is run."""

import re
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbconvert import MarkdownExporter

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("*.ipynb"))
STYLE = re.compile(r"<style scoped>.*?</style>\s*", re.DOTALL)
HEADING = re.compile(r"^## .*$", re.MULTILINE)


class Tutorial(NamedTuple):
    """A notebook's Markdown, and its pictures by name."""

    address: str
    text: str
    pictures: dict[str, bytes]

    @property
    def title(self) -> str:
        return self.text.strip().splitlines()[0].removeprefix("# ")


def tutorials() -> list[Tutorial]:
    """Every notebook, in order."""
    return [_tutorial(path) for path in NOTEBOOKS]


def _tutorial(path: Path) -> Tutorial:
    names = {"unique_key": path.stem, "output_files_dir": path.stem}
    text, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4), resources=names)
    text = HEADING.sub(lambda line: line.group().replace("$", ""), text)  # the table of contents shows no formulas
    text = STYLE.sub("", text).replace(' border="1" class="dataframe"', "")  # so that the site's own style holds
    pictures = {f"tutorials/{name}": data for name, data in resources["outputs"].items()}
    return Tutorial(f"tutorials/{path.stem}.md", text, pictures)


def contents(pages: list[Tutorial]) -> str:
    """The page that leads to them: title, first paragraph and a picture of each."""
    parts = ["# Tutorials", "Notebooks of a minute each (`notebooks/`), with what they printed and drew."]
    for page in pages:
        paragraph = page.text.strip().split("\n\n")[1].rpartition(".")[0] + "."  # whole sentences
        picture = list(page.pictures)[-1].removeprefix("tutorials/")
        name = page.address.removeprefix("tutorials/")
        parts += [f"## [{page.title}]({name})", paragraph, f"[![{page.title}]({picture})]({name})"]
    return "\n\n".join(parts)
