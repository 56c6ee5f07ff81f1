"""The report's page in a real browser: pictures load, tables are filled, nothing is asked of the network."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chromium import needs_browser
from lifelong.plots.report.page import write_report
from run_folders import failed, finished

pytestmark = [pytest.mark.system, needs_browser]


@dataclass
class Seen:
    """The open page, and what the browser heard of it."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for seed in (0, 1):
        for strength in (1, 10):
            made_of = {"learned": 0.8 + 0.05 * seed, "forgets": 1 / (9 + strength)}
            finished(root, f"method.strength={strength}", f"seed={seed}", **made_of)
    finished(root, "method=finetune", "seed=0", forgets=0.3)
    finished(root, "method=ewc", "dataset=split", "scenario=class")
    failed(root, "method=mas", "seed=0", reason="OutOfMemoryError: no room")
    return write_report(root)


@pytest.fixture
def seen(browser: Any, report: Path) -> Iterator[Seen]:
    context = browser.new_context(color_scheme="dark", viewport={"width": 1300, "height": 900})
    seen = Seen(context.new_page())
    seen.page.on("console", lambda message: seen.errors.append(message.text))
    seen.page.on("pageerror", lambda error: seen.errors.append(str(error)))
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.goto(report.as_uri(), wait_until="load")
    yield seen
    context.close()


def test_pictures_load_and_nothing_else_is_asked_for(seen: Seen, report: Path) -> None:
    widths = seen.page.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth, i.naturalHeight])")
    assert len(widths) == 4 + 3  # of the second stream there is a single strength
    assert all(complete and width > 200 and height > 100 for complete, width, height in widths)
    assert seen.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert seen.errors == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [report.as_uri()]


def test_tables_are_filled(seen: Seen) -> None:
    rows = seen.page.eval_on_selector_all(
        "table.results tbody tr", "all => all.map(r => [...r.cells].map(c => c.innerText.trim()))"
    )
    assert [row[:3] for row in rows] == [
        ["ewc", "1", "2"],
        ["ewc", "10", "2"],
        ["finetune", "–", "1"],
        ["ewc", "1000", "1"],
    ]
    assert all(cell for row in rows for cell in row)
    assert "±" in rows[0][3]
    assert "±" not in rows[2][3]
    assert [row.inner_text().split("\t")[:2] for row in seen.page.query_selector_all("tr.best")] == [["ewc", "10"]]
    costs = seen.page.eval_on_selector_all("table.costs tbody tr", "all => all.map(r => r.cells[6].innerText)")
    assert costs == ["4.50 ± 0.00", "4.50", "4.50"]
    assert "OutOfMemoryError: no room" in seen.page.inner_text("table.problems")
