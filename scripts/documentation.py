"""MkDocs' hook (`hooks:` in mkdocs.yml): the pages of the site that are made, and links that lead out of docs/."""

import functools
import html
import re
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

from website.key_pages import key_pages
from website.links import DOCS, ROOT, TEXTS, led_right, source_pages

ROOMS = {
    "run": "Run a configuration from Python, and load what it trained.",
    "methods": "What holds the past: the slot, the penalties, replay, isolation.",
    "importance": "How much each weight matters.",
    "data": "Sources, streams, batches.",
    "memory": "Exemplars of earlier tasks.",
    "models": "Backbones, the learner, its evaluation.",
    "metrics": "Measures of learning and forgetting.",
    "training": "The stream learned task after task.",
    "tracking": "What is logged, and where.",
    "plots": "Figures, tables, the report.",
}
"""The parts of the package that users call or extend, and what is found there."""
RUN = ("experiment.run.run", "experiment.load.load", "experiment.load.load_method", "experiment.result.Result")
"""What the room "run" shows: the callers' part of lifelong.experiment."""
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
UNSEARCHED = re.compile(r'(?=class="(?:highlight"|mkdocstrings-source))')


@functools.cache
def made() -> dict[str, str | bytes]:
    """Address in the site → content of every page that is made, in the order of reading."""
    texts = {address: led_right(path.read_text(), path.parent) for address, path in TEXTS.items()}
    texts["index.md"] = f"---\nhide: [navigation]\n---\n{texts['index.md']}"
    return {**texts, **tutorials(), **key_pages(), **api_pages(), **source_pages()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the parts of the navigation that end in a slash with the pages that are made."""
    for part in config.nav:
        for title, entry in part.items():
            if isinstance(entry, str) and entry.endswith("/"):
                part[title] = [page for page in made() if page.startswith(entry) and page.endswith(".md")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page that is made."""
    for address, content in made().items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of the pages in docs/ right."""
    return markdown if page.file.generated_by else led_right(markdown, DOCS)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Turn TeX into MathML, which browsers draw themselves; mend bars of code in tables; search no code."""
    display = {"div": "block", "span": "inline"}
    content = MATH.sub(lambda found: convert(html.unescape(found[2]), display[found[1]]), content)
    content = re.sub("(?s)<td.*?</td>", lambda cell: cell[0].replace(r"\|", "|"), content)
    return UNSEARCHED.sub("data-search-exclude ", content) if "/" in page.file.src_uri else content


def api_pages() -> dict[str, str]:
    """Address → Markdown of each room of the package; mkdocstrings fills in the docstrings."""
    rows = "\n".join(f"| [{room}]({room}.md) | {what} |" for room, what in ROOMS.items())
    pages = {"api/index.md": f"# Python API\n\n| room | what is found there |\n|---|---|\n{rows}\n"}
    pages |= {f"api/{room}.md": f"# lifelong.{room}\n\n::: lifelong.{room}" for room in ROOMS}
    calls = (f"::: lifelong.{part}\n    options: {{show_root_heading: true}}" for part in RUN)
    return pages | {"api/run.md": "\n\n".join(["# lifelong", *calls])}


def tutorials() -> dict[str, str | bytes]:
    """Address → every notebook as Markdown with the outputs it was committed with, its pictures, and a page of all."""
    contents = ["# Tutorials", "Notebooks of a minute each (`notebooks/`), with what they printed and drew."]
    pages: dict[str, str | bytes] = {"tutorials/index.md": ""}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        names = {"unique_key": path.stem, "output_files_dir": path.stem}
        text, resources = MarkdownExporter().from_notebook_node(nbformat.read(path, as_version=4), resources=names)
        title, first, *_ = text.strip().removeprefix("# ").split("\n\n")
        whole, picture = first.rpartition(".")[0], list(resources["outputs"])[-1]
        contents.append(f"## [{title}]({path.stem}.md)\n\n{whole}.\n\n[![{title}]({picture})]({path.stem}.md)")
        text = re.sub("(?m)^## .*$", lambda line: line[0].replace("$", ""), text)  # contents show no formulas
        text = re.sub(r"(?s)<style scoped>.*?</style>\s*", "", text).replace(' border="1" class="dataframe"', "")
        pages[f"tutorials/{path.stem}.md"] = text
        pages |= {f"tutorials/{name}": data for name, data in resources["outputs"].items()}
    return pages | {"tutorials/index.md": "\n\n".join(contents)}
