"""Links of the repository's texts, brought to where the same thing stands in the site."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TEXTS = {
    "index.md": ROOT / "README.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
}
"""Pages of the site that lie outside of docs/ in the repository."""
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def place(target: Path) -> str:
    """Where a file or folder of the repository stands in the site, from the site's top."""
    for address, text in TEXTS.items():
        if target == text:
            return address
    if target.is_relative_to(DOCS):
        return str(target.relative_to(DOCS))
    path = target.relative_to(ROOT)
    if path.parts[0] == "notebooks":
        return f"tutorials/{target.stem}.md" if target.is_file() else "tutorials/index.md"
    if target.is_dir() and path.parts[:2] == ("src", "lifelong"):
        return f"api/{target.name}.md"
    return f"source/{path}.md"


def led_right(text: str, folder: Path) -> str:
    """The text of `folder` as a page at the site's top: its links lead to pages of the site."""

    def link(found: re.Match[str]) -> str:
        target = (folder / found.group(1)).resolve()
        inside = target.exists() and target.is_relative_to(ROOT)
        return f"]({place(target)}{found.group(2) or ''})" if inside else found.group()

    return LINK.sub(link, text)


def source_pages() -> dict[str, str]:
    """Address → Markdown of what the texts link to that is no page: the code of a file, or of all files of a folder."""
    texts = [*TEXTS.values(), *DOCS.glob("*.md")]
    linked = {(text.parent / found[0]).resolve() for text in texts for found in LINK.findall(text.read_text())}
    shown = {place(path): path for path in sorted(linked) if path.is_relative_to(ROOT)}
    return {address: _code(path) for address, path in shown.items() if address.startswith("source/")}


def _code(target: Path) -> str:
    files = [target] if target.is_file() else sorted(path for path in target.iterdir() if path.is_file())
    parts = [f"## {path.name}\n\n````{path.suffix[1:]}\n{path.read_text()}````\n" for path in files]
    return "\n\n".join(["---\nsearch: {exclude: true}\n---", f"# {target.relative_to(ROOT)}", *parts])


def escaped(text: str, marks: str = r"\*_|[]$") -> str:
    """Text as Markdown shows it letter by letter; what stands in backticks stays code."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = [
        re.sub(f"([{re.escape(marks)}])", r"\\\1", part.replace("&", "&amp;").replace("<", "&lt;"))
        for part in parts[::2]
    ]
    return "".join(parts)
