"""Griffe's extension (`extensions:` in mkdocs.yml): docstrings are text, and are shown letter by letter as Markdown."""

import re
from typing import Any

from griffe import Extension, Object

from website.links import escaped


class Plain(Extension):
    """Doctests become code; what Markdown would take for markup in running text is escaped."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = plain(obj.docstring.value)


def plain(docstring: str) -> str:
    """The docstring as Markdown. Indented lines, which are code or entries of a section, stay as they are."""
    text = re.sub(r"^>>>(?:.+\n?)+", lambda code: re.sub("^", "    ", code.group(), flags=re.M), docstring, flags=re.M)
    lines = (line if line.startswith(" ") else escaped(line, "*") for line in text.split("\n"))
    return "\n".join(re.sub(r"^([+-])(?= )", r"\\\1", line) for line in lines)
