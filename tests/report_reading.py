"""Reads each format of a report back with a parser of its own: what it tells, and the skeleton that it has."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any, final
from urllib.parse import unquote
from xml.etree import ElementTree as ET

from markdown_it import MarkdownIt

from repro_audit.report.findings import UNEXPLAINED
from repro_audit.report.junit import PROGRAM
from repro_audit.report.style import SOURCE_WORDS, YARDSTICK_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from markdown_it.token import Token

MARKDOWN = MarkdownIt("commonmark").enable("table")
_VERDICTS = ("not-reproducible", "reproducible", "inconclusive", "target-failed")
_COMMAND = re.compile(r"::(error|warning|notice) ([^:]*)::(.*)")
_WORDS = {status.value: word for status, word in SOURCE_WORDS.items()}
_VOID = {"meta", "link", "br", "line", "polyline", "rect", "circle"}


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A finding."""

    text: str
    place: str = ""
    """Where the format has a field for it; else it is in the text."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a format tells."""

    verdict: str
    findings: Mapping[str, Found]
    by_status: Mapping[str, str] = field(default_factory=dict)
    """The ids of the sources by the word for their status; only where the format tells them."""


def _verdict_in(words: str) -> str:
    spelt = words.lower().replace(" ", "-")
    return next(verdict for verdict in _VERDICTS if verdict in spelt)


def _joined(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word, content in pairs:
        found[word] = f"{found.get(word, '')} {content}"
    return found


def of_terminal(written: str) -> Told:
    """The page."""
    first, *blocks = re.split(r"\n(?=✗ \S+ +breaks |  rerun )", written)
    sections = {block.split()[1]: block for block in blocks if block.startswith("✗")}
    words = "|".join((*SOURCE_WORDS.values(), *YARDSTICK_WORDS.values()))
    rows = re.split(rf"\n  \S ({words}) ", first)[1:]
    return Told(
        verdict=_verdict_in(written.split("\n", 1)[0]),
        findings={name: Found(text=section) for name, section in sections.items()},
        by_status=_joined(zip(rows[::2], rows[1::2], strict=True)),
    )


def of_json(written: str) -> Told:
    """The document of the tool's own."""
    document = json.loads(written)
    entries = {source["id"]: source for source in document["sources"]}
    broke = {name: each for name, each in entries.items() if each["status"] == "broke"}
    if document["unexplained"] is not None:
        broke[UNEXPLAINED] = {"divergence": document["unexplained"], "fix": None}
    return Told(
        verdict=document["verdict"],
        findings={name: _of_entry(entry) for name, entry in broke.items()},
        by_status=_joined((_WORDS[each["status"]], name) for name, each in entries.items()),
    )


def _of_entry(entry: dict[str, Any]) -> Found:
    where = entry["divergence"] and entry["divergence"]["location"]
    if where is None:
        return Found(text=str(entry["fix"]))
    place = f"{where['file']}:{where['line']}"
    if where["cell"] is not None:
        place = f"{where['file']}, cell {where['cell']}, line {where['line']}"
    fix = entry["fix"] or {"summary": "", "snippet": ""}
    return Found(text=f"{fix['summary']} {fix['snippet']}", place=place)


def of_sarif(written: str) -> Told:
    """The log."""
    (run,) = json.loads(written)["runs"]
    properties = run["properties"]
    assert run["invocations"][0]["executionSuccessful"] == (
        properties["verdict"] != "target-failed"
    )
    return Told(
        verdict=properties["verdict"],
        findings={result["ruleId"]: _of_result(result) for result in run["results"]},
        by_status=_joined((_WORDS[status], name) for name, status in properties["sources"].items()),
    )


def _of_result(result: dict[str, Any]) -> Found:
    text = result["message"]["text"].replace("\\[", "[").replace("\\]", "]")
    location = result["locations"][0] if result["locations"] else {}
    physical = location.get("physicalLocation", {})
    names = (each.get("fullyQualifiedName", "") for each in location.get("logicalLocations", ()))
    place = next(filter(None, names), "")
    if "region" in physical:
        uri = unquote(physical["artifactLocation"]["uri"])
        place = f"{uri}:{physical['region']['startLine']}"
    return Found(text=text, place=place)


def of_junit(written: str) -> Told:
    """The document."""
    root = ET.fromstring(written)  # noqa: S314  # our own
    properties = {each.get("name"): each.get("value") for each in root.iter("property")}
    cases = {str(case.get("name")): case for case in root.iter("testcase")}
    failures = {name: case.find("failure") for name, case in cases.items()}
    statuses = (
        (_of_case(case), name) for name, case in cases.items() if name not in {PROGRAM, UNEXPLAINED}
    )
    return Told(
        verdict=str(properties["verdict"]),
        findings={
            name: Found(text=str(failure.text))
            for name, failure in failures.items()
            if failure is not None
        },
        by_status=_joined(statuses),
    )


def _of_case(case: ET.Element) -> str:
    for tag, word in (("failure", "differs"), ("error", "error"), ("skipped", "not tried")):
        if case.find(tag) is not None:
            return word
    return str(case.findtext("system-out")).partition(":")[0]


def of_markdown(written: str) -> Told:
    """The page."""
    tokens = MARKDOWN.parse(written)
    findings: dict[str, str] = {}
    statuses: list[tuple[str, str]] = []
    heading = name = status = ""
    for before, token in zip([None, *tokens], tokens, strict=False):
        content = _content(token)
        if before is not None and before.type == "heading_open":
            heading = heading or content
            name = content.split()[1] if before.tag == "h3" else ""
        if token.type == "html_block":
            name = ""
            status = "".join(re.findall("<summary>(.*?):", content))
        elif content.startswith("error: "):
            name = ""
            statuses.append(("error", content))
        elif status:
            statuses.append((status, content))
        if name:
            findings[name] = findings.get(name, "") + content + "\n"
    statuses += [("differs", each) for each in findings]
    return Told(
        verdict=_verdict_in(heading),
        findings={each: Found(text=content) for each, content in findings.items()},
        by_status=_joined(iter(statuses)),
    )


def _content(token: Token) -> str:
    return "".join(each.content or " " for each in token.children or [token])


def of_github(written: str) -> Told:
    """The commands: the first is about the verdict."""
    first, *others = (_command(line) for line in written.splitlines())
    return Told(
        verdict=_verdict_in(first[1].split("\n")[0]),
        findings={
            properties["title"].split()[0]: Found(
                text=message,
                place=f"{properties['file']}:{properties['line']}" if "line" in properties else "",
            )
            for properties, message in others
        },
    )


def _command(line: str) -> tuple[dict[str, str], str]:
    found = _COMMAND.fullmatch(line)
    assert found is not None, line
    properties = dict(each.split("=", 1) for each in found[2].split(","))
    return {key: _unescaped(value) for key, value in properties.items()}, _unescaped(found[3])


def _unescaped(value: str) -> str:
    for sign, escape in ((",", "%2C"), (":", "%3A"), ("\n", "%0A"), ("\r", "%0D"), ("%", "%25")):
        value = value.replace(escape, sign)
    return value


def of_gitlab(written: str) -> Told:
    """The entries: without one of the worst two sorts, and without a critical one, all is well."""
    entries = {entry["check_name"]: entry for entry in json.loads(written)}
    broken = any(entry["severity"] == "critical" for entry in entries.values())
    stopped = [name for name in ("inconclusive", "target-failed") if entries.pop(name, None)]
    return Told(
        verdict=stopped[0] if stopped else "not-reproducible" if broken else "reproducible",
        findings={
            name: Found(text=entry["description"], place=_of_location(entry["location"]))
            for name, entry in entries.items()
        },
    )


def _of_location(location: dict[str, Any]) -> str:
    path, line = location["path"], location["lines"]["begin"]
    return "" if path.endswith(".ipynb") or line == 1 else f"{path}:{line}"


@final
class Page(HTMLParser):
    """The tags of a page, and the text of its articles and table rows."""

    def __init__(self, written: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.heading = ""
        self.findings: dict[str, str] = {}
        self.statuses: list[tuple[str, str]] = []
        self._open: list[str] = []
        self._finding = self._row = self._status = ""
        self.feed(written)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag != "span":  # as code is coloured
            self.tags.append((tag, tuple(name for name, _ in attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "article":
            self._finding = str(given["aria-label"]).removeprefix("Finding: ")
            self.findings[self._finding] = ""
        if tag == "tr":
            self._status = _WORDS.get(given.get("class") or "", "")
        if given.get("class") == "untried":
            self._status = "not tried"

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "article":
            self._finding = ""

    def handle_data(self, data: str) -> None:
        if {"style", "script"} & set(self._open):
            return
        if "h1" in self._open:
            self.heading += data
        if self._finding:
            self.findings[self._finding] += data
        if self._open and self._open[-1] in {"th", "dt"}:
            self.statuses.append((self._status, data))


def of_html(written: str) -> Told:
    """The page."""
    page = Page(written)
    return Told(
        verdict=_verdict_in(page.heading),
        findings={name: Found(text=content) for name, content in page.findings.items()},
        by_status=_joined(iter(page.statuses)),
    )


READERS: Mapping[str, Callable[[str], Told]] = {
    "terminal": of_terminal,
    "json": of_json,
    "html": of_html,
    "sarif": of_sarif,
    "junit": of_junit,
    "markdown": of_markdown,
    "github": of_github,
    "gitlab": of_gitlab,
}


def _lines(_written: str) -> None:
    """A page of text has no skeleton."""


def _of_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _of_plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_of_plain(each) for each in value]
    return type(value).__name__


def _of_xml(element: ET.Element) -> Any:
    return element.tag, sorted(element.keys()), [_of_xml(each) for each in element]


def _of_tokens(written: str) -> list[Any]:
    return [
        (
            token.type,
            token.content if token.type == "html_block" else "",
            sorted({each.type for each in token.children or ()} - {"softbreak"}),
        )
        for token in MARKDOWN.parse(written)
    ]


def _of_commands(written: str) -> list[Any]:
    return [sorted(_command(line)[0]) for line in written.split("\n")[:-1]]


SKELETONS: Mapping[str, Callable[[str], Any]] = {
    "terminal": _lines,
    "json": lambda written: _of_plain(json.loads(written)),
    "html": lambda written: Page(written).tags,
    "sarif": lambda written: _of_plain(json.loads(written)),
    "junit": lambda written: _of_xml(ET.fromstring(written)),  # noqa: S314  # our own
    "markdown": _of_tokens,
    "github": _of_commands,
    "gitlab": lambda written: _of_plain(json.loads(written)),
}
"""What stays the same whatever the strings in a report are."""
