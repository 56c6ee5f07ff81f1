"""Griffe's extension (`extensions:` in mkdocs.yml): docstrings are text, and are shown letter by letter as Markdown."""

import re
from typing import Any

from griffe import Extension, Object


class Plain(Extension):
    """Doctests become code; what Markdown would take for markup in running text is escaped."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)


def plain(docstring: str) -> str:
    """The docstring as Markdown. Indented lines, which are code or entries of a section, stay as they are."""
    paragraphs = docstring.split("\n\n")
    return "\n\n".join(
        re.sub("^", "    ", paragraph, flags=re.MULTILINE) if paragraph.startswith(">>>") else _escaped(paragraph)
        for paragraph in paragraphs
    )


def _escaped(paragraph: str) -> str:
    lines = (line if line.startswith(" ") else _line(line) for line in paragraph.split("\n"))
    return "\n".join(lines)


def _line(line: str) -> str:
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [part.replace("*", r"\*").replace("<", "&lt;") for part in parts[::2]]
    return re.sub(r"^([+-])(?= )", r"\\\1", "".join(parts))
