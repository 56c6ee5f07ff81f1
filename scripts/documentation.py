"""MkDocs' hook (`hooks:` in mkdocs.yml): the pages of the site that are made, and links that lead out of docs/."""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.key_pages import key_pages
from website.links import DOCS, ROOT, TEXTS, led_right, source_pages
from website.tutorials import contents, tutorials

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
HOME = "---\nhide: [navigation]\n---\n"
MATH = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
CELL = re.compile(r"<td.*?</td>", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the parts of the navigation that end in a slash with the pages that are made."""
    made = {
        "tutorials/": ["tutorials/index.md", *(page.address for page in tutorials())],
        "keys/": list(key_pages()),
        "api/": list(api_pages()),
    }

    def filled(entry: Any) -> Any:
        if isinstance(entry, dict):
            return {title: filled(below) for title, below in entry.items()}
        return [filled(below) for below in entry] if isinstance(entry, list) else made.get(entry, entry)

    config.nav = filled(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add every page that is made."""
    pages = tutorials()
    made: dict[str, str | bytes] = {
        **{address: led_right(path.read_text(), path.parent) for address, path in TEXTS.items()},
        "index.md": HOME + led_right(TEXTS["index.md"].read_text(), ROOT),
        **{page.address: page.text for page in pages},
        **{name: data for page in pages for name, data in page.pictures.items()},
        "tutorials/index.md": contents(pages),
        **key_pages(),
        **api_pages(),
        **source_pages(),
    }
    for address, content in made.items():
        files.append(File.generated(config, address, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead the links of the pages in docs/ right."""
    return markdown if page.file.generated_by else led_right(markdown, DOCS)


def on_page_content(content: str, page: Page, **_: Any) -> str:
    """Turn TeX into MathML, which browsers draw themselves; mend bars of code in tables; search no code."""
    content = MATH.sub(lambda found: convert(html.unescape(found.group(2)), _display(found.group(1))), content)
    content = CELL.sub(lambda cell: cell.group().replace(r"\|", "|"), content)
    if page.file.src_uri.startswith("tutorials/"):
        return content.replace('<div class="highlight"', '<div data-search-exclude class="highlight"')
    return content.replace(
        '<details class="mkdocstrings-source', '<details data-search-exclude class="mkdocstrings-source'
    )


def _display(tag: str) -> str:
    return "block" if tag == "div" else "inline"


def api_pages() -> dict[str, str]:
    """Address → Markdown of each room of the package; mkdocstrings fills in the docstrings."""
    rows = "\n".join(f"| [{room}]({room}.md) | {what} |" for room, what in ROOMS.items())
    pages = {"api/index.md": f"# Python API\n\n| room | what is found there |\n|---|---|\n{rows}\n"}
    for room in ROOMS:
        calls = [f"::: lifelong.{part}\n    options: {{show_root_heading: true}}" for part in RUN]
        shown = ["# lifelong", *calls] if room == "run" else [f"# lifelong.{room}", f"::: lifelong.{room}"]
        pages[f"api/{room}.md"] = "\n\n".join(shown)
    return pages
