"""The HTML page as text: what is in it, what it loads, and what hostile strings do to it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

from repro_audit.report import html, markdown, text, verdict
from repro_audit.report.model import LossCurve, Report
from tests.hostile import everywhere
from tests.report_models import (
    BROKEN,
    CLEAN,
    FAILED,
    HOSTILE_FAILURE,
    NUM_WORKERS,
    REPORTS,
    UNEXPLAINED,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

VOID = {"meta", "link", "circle", "line", "rect", "polyline", "img", "br"}
LOADING = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background"}
NAMES = list(REPORTS)


class Page(HTMLParser):
    """The elements of a page in order, its text, and whether they are nested as they should be."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.pieces: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"style", "script"}:
            self.pieces.append(data)

    @property
    def text(self) -> str:
        """All that is to be read, with single spaces."""
        return " ".join("".join(self.pieces).split())

    @property
    def tags(self) -> Counter[str]:
        return Counter(tag for tag, _ in self.elements)


def strings(report: Report) -> Iterable[str]:
    """What a reader must find of a report, whatever its verdict."""
    yield verdict.said(report).lower()
    yield f"exit {report.exit_code}"
    yield report.target.spec
    yield report.environment.cpu
    yield from report.notes
    for trial in report.trials:
        yield from (trial.id, *trial.setting.values())
    if report.failure is not None:
        yield report.failure.what
        return
    for scope in report.decision.scopes:
        yield verdict.because(report, scope)
    for source in report.sources:
        yield from (source.id, source.reason, *(level.level for level in source.levels))
        yield from source.evidence
        if source.divergence is not None and source.divergence.cause is not None:
            cause = source.divergence.cause
            yield cause.what
            if cause.location is not None:
                yield cause.location.place
                yield cause.location.code or ""
                if cause.location.excerpt is not None:
                    yield from (line.strip() for line in cause.location.excerpt.lines)
        if source.divergence is not None and source.divergence.drift is not None:
            yield from (layer.name for layer in source.divergence.drift.layers)
        if source.fix is not None:
            yield from (source.fix.summary, source.fix.snippet, source.fix.proof)


def loaded(page: Page) -> list[str]:
    """What a browser would fetch."""
    found = [
        value or ""
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in LOADING or name.endswith(":href")
    ]
    return [value for value in found if not value.startswith("#") and value != "data:,"]


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_report_holds_is_there(name: str) -> None:
    found = Page(html.render(REPORTS[name])).text.lower()
    for string in strings(REPORTS[name]):
        said = " ".join(text.block(text.bounded(string, 600)).lower().split())
        assert said[:500] in found


def test_what_is_left_out_is_missed() -> None:
    """A twin: the test above can fail."""
    found = Page(html.render(CLEAN)).text.lower()
    missed = [string for string in strings(BROKEN) if string.lower() not in found]
    assert "Seed every generator in each worker" in missed


@pytest.mark.parametrize("name", NAMES)
def test_elements_are_nested_and_labelled(name: str) -> None:
    page = Page(html.render(REPORTS[name]))
    assert not page.wrong
    assert not page.open
    assert page.tags["h1"] == page.tags["main"] == page.tags["header"] == page.tags["footer"] == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {str(attributes["href"]) for tag, attributes in page.elements if tag == "a"}
    assert targets <= {f"#{each}" for each in ids}
    assert all(
        attributes.get("aria-label") for tag, attributes in page.elements if tag in {"svg", "nav"}
    )


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_loaded_from_the_network(name: str) -> None:
    content = html.render(REPORTS[name])
    assert not loaded(Page(content))
    style = re.search(r"<style>(.*?)</style>", content, re.DOTALL)
    assert style is not None
    assert not re.search(r"url\(|@import|//", style[1])


def test_what_is_loaded_is_noticed() -> None:
    """A twin: the test above can fail."""
    assert loaded(Page('<img src="https://example.org/x.png"><a href="#here">x</a>')) == [
        "https://example.org/x.png"
    ]


@pytest.mark.parametrize("report", [BROKEN, UNEXPLAINED, FAILED, HOSTILE_FAILURE])
@pytest.mark.parametrize("render", [html.render, html.summary])
def test_hostile_strings_add_no_element(report: Report, render: html.Render) -> None:
    assert harmed(report, render) == []


def test_unescaped_strings_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twin: the test above can fail."""
    careless = html._environment().overlay(autoescape=False)
    monkeypatch.setattr(html, "_environment", lambda: careless)
    found = harmed(BROKEN, html.render)
    assert {"img: more than before", "onerror", "onclick"} <= set(found)


def harmed(report: Report, render: html.Render) -> list[str]:
    """What a report full of markup has that one full of harmless words has not; code has spans in both."""
    page, before = Page(render(everywhere(report))), Page(render(everywhere(report, " harmless")))
    more = {*(page.tags - before.tags)} - {"span"}
    names = {name for _, attributes in page.elements for name in attributes}
    return [
        *(f"{tag}: more than before" for tag in sorted(more)),
        *sorted(name for name in names if name.startswith("on")),
    ]


@pytest.mark.parametrize("name", ["hostile", "hostile-failure"])
@pytest.mark.parametrize("render", [html.render, html.summary])
def test_control_and_direction_characters_are_shown(name: str, render: html.Render) -> None:
    content = render(REPORTS[name])
    assert not re.findall(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\ud800-\udfff]", content
    )
    assert "\\u202eevil" in content
    content.encode("utf-8")


@pytest.mark.parametrize("render", [html.render, markdown.render])
def test_a_fix_keeps_its_tabs(render: html.Render) -> None:
    snippet = "--- train.py\n+++ train.py\n@@ -1 +1 @@\n-\tx = 1\n+\tx = 2"
    assert NUM_WORKERS.fix is not None
    source = replace(NUM_WORKERS, fix=replace(NUM_WORKERS.fix, snippet=snippet))
    content = re.sub(r"</?span[^>]*>", "", render(replace(BROKEN, sources=(source,))))
    assert snippet in content


def test_the_policy_knows_the_script_and_the_style() -> None:
    content = html.render(BROKEN)
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.DOTALL)
        assert f"{tag}-src {html._hash(inside)}".replace("'", "&#39;") in content


def test_the_summary_is_short_and_has_every_finding() -> None:
    content = Page(html.summary(BROKEN))
    assert {"article", "html", "table"}.isdisjoint(content.tags)
    assert not content.wrong
    assert not content.open
    for said in ("Not reproducible on rerun", "num-workers", "train.py:17", "nondeterministic-op"):
        assert said in content.text


def test_the_line_to_blame_is_marked_among_those_around_it() -> None:
    content = html.render(BROKEN)
    (marked,) = re.findall(r"<mark[^>]*>(.*?)</mark>", content)
    assert Page(marked).text == "17 return x + np.random.rand(64), y"
    rows = re.findall(r'class="number">(\d+) ', content)
    assert rows == [str(number) for number in range(14, 21)]


def test_a_drift_is_a_table_that_is_darker_the_larger_it_is() -> None:
    content = html.render(BROKEN)
    cells = re.findall(r'<td class="shade-(\w+)">([^<]*)</td>', content)
    assert cells == [
        *(("1", "1.5e-08"), ("3", "3.2e-07"), ("5", "1.2e-04"), ("7", "2.1e-03")),
        *(("0", "same"), ("3", "1.1e-06"), ("8", "nan"), ("8", "1.8e-02")),
        *(("0", "same"), ("0", "same"), ("unknown", "differs"), ("unknown", "differs")),
    ]
    said = "3 of 3 layers differ, the first after step 0; most in layer encoder.layers.1, by nan after step 2."
    assert said in Page(content).text


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ((), ()),
        ((1.0,), (2.0,)),
        ((1.0, 1.0), (1.0, 1.0)),
        ((1.0, 1.0 + 2**-52), (1.0, 1.0)),
        ((float("nan"), 1.0), (float("nan"), 2.0)),
        ((float("inf"), float("nan")), (0.0, 0.0)),
        ((1.7e308, -1.7e308), (-1.7e308, 1.7e308)),
        ((5e-324, 0.0), (0.0, 0.0)),
        (tuple(float(step) for step in range(1000)), tuple(step + 1.0 for step in range(700))),
    ],
)
def test_any_losses_can_be_drawn(ours: tuple[float, ...], theirs: tuple[float, ...]) -> None:
    curves = (LossCurve(label="pinned", values=ours), LossCurve(label="varied", values=theirs))
    sources = tuple(replace(s, losses=curves if s.losses else None) for s in BROKEN.sources)
    content = html.render(replace(BROKEN, sources=sources))
    drawn = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|width|height|points)="([^"]*)"', content)
    numbers = [float(number) for value in drawn for number in re.split(r"[ ,]", value)]
    assert all(0 <= number <= 360 for number in numbers)
