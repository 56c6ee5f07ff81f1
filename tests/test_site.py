"""The documentation site: built strictly, and read in a real browser from the disk, without a network."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chromium import needs_browser

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("index", "tutorials/01_forgetting", "own", "keys/index", "keys/method", "api/metrics")
pytestmark = [pytest.mark.system, pytest.mark.xdist_group("site")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A broken link, anchor or reference, or a page outside of the navigation, ends the build."""
    pytest.importorskip("mkdocs", reason="needs the extra docs, not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def test_pages_ask_for_nothing_outside_of_the_site(site: Path) -> None:
    loads = ('src="http', "@import", 'rel="stylesheet" href="http', "url(http")
    pages = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(pages) > 60
    found = {path.name: word for path in pages for word in loads if word in path.read_text()}
    assert found == {}


def test_formulas_are_drawn_and_not_left_as_tex(site: Path) -> None:
    text = (site / "tutorials" / "02_methods.html").read_text()
    assert text.count("<math") > 20
    assert "arithmatex" not in text


def test_docstrings_show_doctests_and_stars_as_written(site: Path) -> None:
    metrics, methods = ((site / "api" / f"{room}.html").read_text() for room in ("metrics", "methods"))
    assert "<blockquote>" not in metrics
    assert "θ*" in methods
    assert "θ<em>" not in methods


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_the_screen_and_loads_its_pictures(site: Path, browser: Any, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True)
    page, heard, asked = context.new_page(), [], []
    page.on("console", lambda message: heard.append(message.text))
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri(), wait_until="load")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)"), name
    context.close()
    assert heard == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []


@needs_browser
def test_search_finds_a_word_in_pages_opened_from_the_disk(site: Path, browser: Any) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800}, offline=True)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    page.click(".md-search__input")
    page.keyboard.type("forgetting")
    page.wait_for_selector(".md-search-result__item")
    titles = " ".join(page.locator(".md-search-result__item h1").all_inner_texts())
    context.close()
    assert "Forgetting, question by question" in titles
    assert "metrics" in titles
