"""Links of the repository's texts, brought to where the same thing stands in the site."""

import re
from collections.abc import Iterator
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
UNSEARCHED = "---\nsearch: {exclude: true}\n---\n"
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml"}


def targets(text: str, folder: Path) -> Iterator[Path]:
    """The files and folders of the repository that a text in `folder` links to."""
    for found in LINK.finditer(text):
        target = (folder / found.group(1)).resolve()
        if target.exists() and target.is_relative_to(ROOT):
            yield target


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
    return f"source/{path}.md" if target.is_file() else f"source/{path}/index.md"


def led_right(text: str, folder: Path) -> str:
    """The text of `folder` as a page at the site's top: its links lead to pages of the site."""

    def link(found: re.Match[str]) -> str:
        target = (folder / found.group(1)).resolve()
        inside = target.exists() and target.is_relative_to(ROOT)
        return f"]({place(target)}{found.group(2) or ''})" if inside else found.group()

    return LINK.sub(link, text)


def source_pages() -> dict[str, str]:
    """Address → Markdown of every file that a text links to and that is no page: the code itself."""
    texts = [*TEXTS.values(), *sorted(DOCS.glob("*.md"))]
    linked = {target for text in texts for target in targets(text.read_text(), text.parent)}
    folders = sorted(target for target in linked if target.is_dir() and place(target).startswith("source/"))
    pages = {place(folder): _listing(folder) for folder in folders}
    files = linked | {path for folder in folders for path in _files(folder)}
    return pages | {
        place(path): _code(path) for path in sorted(files) if place(path).startswith("source/") and path.is_file()
    }


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in LANGUAGES)


def _listing(folder: Path) -> str:
    names = "\n".join(f"- [{path.name}]({path.name}.md)" for path in _files(folder))
    return f"# {folder.relative_to(ROOT)}\n\n{names}\n"


def _code(path: Path) -> str:
    return (
        f"{UNSEARCHED}# {path.relative_to(ROOT)}\n\n````{LANGUAGES.get(path.suffix, 'text')}\n{path.read_text()}````\n"
    )
