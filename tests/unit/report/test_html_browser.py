"""The HTML page in a browser: quiet, whole, harmless, and for everyone. Skipped where there is no Chromium to drive."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.report import html
from tests.hostile import everywhere
from tests.report_models import BROKEN, NUM_WORKERS, RACE, REPORTS, UNEXPLAINED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from repro_audit.report.model import Report

sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.audit,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

DESK, TABLET, PHONE = (1280, 800), (768, 1024), (390, 844)
FOUR = replace(
    BROKEN,
    sources=(
        *(s for s in BROKEN.sources if s.id not in {"artifact-cache", "object-address"}),
        replace(NUM_WORKERS, id="artifact-cache"),
        replace(RACE, id="object-address"),
    ),
)
"""As many findings as three_causes has."""
PAGES: dict[str, Report] = {
    **REPORTS,
    "four": FOUR,
    "harmed": everywhere(BROKEN),
    "harmed-unexplained": everywhere(UNEXPLAINED),
    "harmed-failure": everywhere(REPORTS["failed"]),
}
NAMES = list(PAGES)
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Visit:
    """A page in a browser, and what happened while it was there."""

    def __init__(
        self, browser: Any, file: Path, size: tuple[int, int] = DESK, **options: Any
    ) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.fetched: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.fetched.append(request.url))
        self.page.goto(file.as_uri())

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_panels(self) -> int:
        """Open each panel as a reader does; of panels within panels, the outer ones first."""
        panels = self.page.locator("details")
        for number in range(panels.count()):
            panels.nth(number).locator("> summary").click()
        return int(panels.count())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    directory = tmp_path_factory.mktemp("pages")
    found = {name: directory / f"{name}.html" for name in PAGES}
    for name, file in found.items():
        file.write_text(html.render(PAGES[name]), encoding="utf-8")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_quiet_opens_every_panel_and_never_scrolls_sideways(
    browser: Any, files: dict[str, Path], name: str
) -> None:
    visit = Visit(browser, files[name])
    count = visit.open_panels()
    assert visit.page.locator("details[open]").count() == count
    assert visit.page.evaluate(
        "[...document.querySelectorAll('details > :not(summary)')].every(e => e.checkVisibility())"
    )
    for width in (320, 390, 768, 1280):
        visit.page.set_viewport_size({"width": width, "height": 800})
        assert visit.page.evaluate(OVERFLOW) == 0
    assert visit.said == []
    assert visit.fetched == [files[name].as_uri()]
    visit.context.close()


def test_a_page_that_is_not_quiet_is_noticed(browser: Any, tmp_path: Path) -> None:
    """A twin: the test above can fail."""
    loud = html.render(BROKEN).replace("<main", '<img src="https://example.org/x.png"><main')
    (tmp_path / "loud.html").write_text(loud, encoding="utf-8")
    visit = Visit(browser, tmp_path / "loud.html")
    assert "violates the following Content Security Policy" in "".join(visit.said)
    visit.context.close()


@pytest.mark.parametrize("name", ["harmed", "harmed-unexplained", "harmed-failure"])
def test_hostile_names_do_nothing(browser: Any, files: dict[str, Path], name: str) -> None:
    visit = Visit(browser, files[name], bypass_csp=True)
    visit.open_panels()
    assert not harm_done(visit)
    visit.context.close()


def test_harm_is_noticed(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin: the test above can fail."""
    careless = html._environment().overlay(autoescape=False)
    monkeypatch.setattr(html, "_environment", lambda: careless)
    (tmp_path / "harm.html").write_text(html.render(PAGES["harmed"]), encoding="utf-8")
    visit = Visit(browser, tmp_path / "harm.html", bypass_csp=True)
    assert {"an image", "dialog: 1"} <= {*harm_done(visit)}
    visit.context.close()


def harm_done(visit: Visit) -> list[str]:
    done = [said for said in visit.said if said.startswith("dialog")]
    if visit.page.locator("img").count():
        done.append("an image")
    if visit.page.title() == "harmed":
        done.append("a title")
    return done


def test_a_page_that_scrolls_sideways_is_noticed(browser: Any, tmp_path: Path) -> None:
    """A twin: the test above can fail."""
    wide = html.render(BROKEN).replace("<h1>", '<h1><svg width="900"></svg>')
    (tmp_path / "wide.html").write_text(wide, encoding="utf-8")
    visit = Visit(browser, tmp_path / "wide.html", PHONE, bypass_csp=True)
    visit.page.add_style_tag(content=".ra svg { width: 900px }")
    assert visit.page.evaluate(OVERFLOW) > 0
    visit.context.close()


@pytest.mark.parametrize(
    ("name", "size", "scheme"),
    [
        ("four", PHONE, "dark"),
        pytest.param("four", DESK, "light", marks=pytest.mark.deep),
        pytest.param("unexplained", PHONE, "light", marks=pytest.mark.deep),
        pytest.param("failed", DESK, "dark", marks=pytest.mark.deep),
    ],
)
def test_axe_finds_nothing(
    browser: Any, files: dict[str, Path], name: str, size: tuple[int, int], scheme: str
) -> None:
    visit = Visit(browser, files[name], size, color_scheme=scheme)
    visit.open_panels()
    assert barriers(visit) == []
    visit.context.close()


def test_barriers_are_noticed(browser: Any, files: dict[str, Path]) -> None:
    """A twin: the test above can fail."""
    visit = Visit(browser, files["four"], bypass_csp=True)
    visit.page.add_style_tag(content=".ra .muted { color: #ddd }")
    assert "color-contrast" in barriers(visit)
    visit.context.close()


def barriers(visit: Visit) -> list[str]:
    """The rules of axe that the page breaks."""
    return [found["id"] for found in axe.Axe().run(visit.page).response["violations"]]


@pytest.mark.parametrize("size", [DESK, PHONE])
def test_verdict_and_four_findings_show_at_once(
    browser: Any, files: dict[str, Path], size: tuple[int, int]
) -> None:
    visit = Visit(browser, files["four"], size)
    assert visit.page.get_by_role("navigation").get_by_role("listitem").count() == 4
    for part in (visit.page.get_by_role("heading", level=1), visit.page.get_by_role("navigation")):
        box = part.bounding_box()
        assert box["y"] + box["height"] <= size[1]
    visit.context.close()


def test_a_fix_is_copied(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["broken"], permissions=["clipboard-read", "clipboard-write"])
    button = visit.page.get_by_role("button", name="Copy").last
    button.click()
    visit.page.get_by_role("button", name="Copied").wait_for()
    assert NUM_WORKERS.fix is not None
    copied = visit.page.evaluate("navigator.clipboard.readText()")
    assert copied == NUM_WORKERS.fix.snippet.strip()
    visit.context.close()


def test_without_javascript_all_but_copying_is_there(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["broken"], java_script_enabled=False)
    assert visit.page.get_by_role("button", name="Copy").count() == 0
    assert visit.open_panels() > 2
    assert visit.page.get_by_text("all pinned").is_visible()
    visit.context.close()


def test_panels_are_open_on_paper(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["broken"])
    inside = visit.page.get_by_text("all pinned")
    assert not inside.is_visible()
    visit.page.emulate_media(media="print")
    assert inside.is_visible()
    visit.context.close()


def test_the_keyboard_reaches_what_there_is(browser: Any, files: dict[str, Path]) -> None:
    visit = Visit(browser, files["broken"])
    reached = []
    for _ in range(5):
        visit.page.keyboard.press("Tab")
        reached.append(visit.page.evaluate("document.activeElement.textContent").split()[0])
    assert reached[:3] == ["Skip", "nondeterministic-op", "num-workers"]
    visit.context.close()


@pytest.mark.deep
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(browser: Any, files: dict[str, Path], tmp_path: Path, scheme: str) -> None:
    """For eyes: they lie in the directory SCREENSHOTS where that is set."""
    directory = os.environ.get("SCREENSHOTS", str(tmp_path))
    visit = Visit(browser, files["four"], color_scheme=scheme)
    for width, height in (DESK, TABLET, PHONE):
        visit.page.set_viewport_size({"width": width, "height": height})
        path = f"{directory}/report-{width}-{scheme}.png"
        assert len(visit.page.screenshot(path=path, full_page=True)) > 20_000
    visit.context.close()
