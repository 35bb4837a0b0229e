"""Every format: the same verdict, sources, lines and fixes in all of them, valid, and harmless whatever names say."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from repro_audit.report import as_json, effect, github, gitlab, junit, plain, results, sarif, text
from repro_audit.report.findings import UNEXPLAINED
from repro_audit.report.formats import FORMATS
from repro_audit.report.markdown import code, fenced, prose
from repro_audit.report.model import Divergence, Fix, Location, Report, SourceResult, SourceStatus
from repro_audit.report.style import SOURCE_WORDS
from repro_audit.source import Scope
from tests import report_schemas as schemas
from tests.report_models import (
    BROKEN,
    CLEAN,
    FAILED,
    HOSTILE,
    HOSTILE_FAILURE,
    HOSTILE_REPORT,
    RACE,
    REPORTS,
)
from tests.report_reading import MARKDOWN, READERS, SKELETONS, Found, Told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BY_SOURCE = ("json", "junit")
"""They show findings where the catalogue has them."""
FOR_PEOPLE = ("terminal", "html", "markdown")
"""They show no sources where the target failed."""


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A model with each of its strings changed."""
    if isinstance(value, str) and not isinstance(value, Enum):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{each.name: mapped(getattr(value, each.name), change) for each in fields(value)},
        )
    if isinstance(value, tuple):
        return tuple(mapped(each, change) for each in value)
    if isinstance(value, dict):
        return {key: mapped(each, change) for key, each in value.items()}
    return value


def squeezed(content: str) -> str:
    return "".join(content.split())


def in_notebook() -> Report:
    def cell(found: Location) -> Location:
        return replace(found, file="train.ipynb", cell=4, line=2)

    return replace(
        BROKEN,
        sources=tuple(_moved(each, cell) if each is RACE else each for each in BROKEN.sources),
    )


def _moved(source: Any, move: Callable[[Location], Location]) -> Any:
    cause = source.divergence.cause
    moved = replace(cause, location=move(cause.location))
    return replace(source, divergence=replace(source.divergence, cause=moved))


MODELS = {
    **{name: report for name, report in REPORTS.items() if not name.startswith("hostile")},
    "in-notebook": in_notebook(),
}


def wrong(name: str, told: Told, report: Report) -> list[str]:
    """What a format tells otherwise than the report is."""
    found = [f"verdict {told.verdict}"] if told.verdict != report.verdict.value else []
    broke: dict[str, tuple[Divergence | None, Fix | None]] = {}
    if report.unexplained is not None:
        broke[UNEXPLAINED] = (report.unexplained, None)
    if report.failure is None:
        broke |= {each.id: (each.divergence, each.fix) for each in effect.findings(report.sources)}
    names = list(told.findings)
    if names != list(broke) and not (name in BY_SOURCE and set(names) == set(broke)):
        found.append(f"findings {names}")
    for each, (divergence, fix) in broke.items():
        said = told.findings.get(each, Found(text=""))
        if not _is_placed(said, divergence):
            found.append(f"place of {each}: {said.place}")
        if not _is_fixed(said, fix):
            found.append(f"fix of {each}")
    if not told.by_status or (report.failure is not None and name in FOR_PEOPLE):
        return found
    return found + [
        f"status of {source.id}" for source in report.sources if not _is_listed(source, told)
    ]


def _is_listed(source: SourceResult, told: Told) -> bool:
    """Formats for machines have the same word for a source that breaks no promise."""
    words = {SOURCE_WORDS[source.status], results.word(source)}
    return any(source.id in told.by_status.get(word, "") for word in words)


def _is_placed(said: Found, divergence: Divergence | None) -> bool:
    cause = divergence.cause if divergence is not None else None
    if cause is None or cause.location is None:
        return True
    place = cause.location.place
    return said.place == place if said.place else place in said.text


def _is_fixed(said: Found, fix: Fix | None) -> bool:
    words = squeezed(said.text)
    return fix is None or (squeezed(fix.summary) in words and squeezed(fix.snippet) in words)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_all_formats_tell_the_same(name: str, model: str) -> None:
    report = MODELS[model]
    written = FORMATS[name].render(report)
    assert wrong(name, READERS[name](written), report) == []
    if report.failure is not None:
        assert squeezed(report.failure.what) in squeezed(written.replace("\\_", "_"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_told_otherwise_is_noticed(name: str) -> None:
    told = READERS[name](FORMATS[name].render(BROKEN))

    def with_race(**changes: Any) -> Report:
        other = replace(RACE, **changes)
        return replace(BROKEN, sources=tuple(other if s is RACE else s for s in BROKEN.sources))

    assert RACE.fix is not None
    line = _moved(RACE, lambda found: replace(found, line=42)).divergence
    assert wrong(name, told, CLEAN)
    assert wrong(name, told, with_race(divergence=line)) == [
        f"place of {RACE.id}: {told.findings[RACE.id].place}"
    ]
    fixed = with_race(fix=replace(RACE.fix, snippet="torch.manual_seed(0)"))
    assert wrong(name, told, fixed) == [f"fix of {RACE.id}"]
    if told.by_status:
        held = replace(BROKEN.sources[4], status=SourceStatus.NOT_EXERCISED)
        other = replace(BROKEN, sources=(*BROKEN.sources[:4], held, *BROKEN.sources[5:]))
        assert wrong(name, told, other) == ["status of hash-seed"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("model", MODELS)
def test_a_saved_report_renders_as_the_one_that_was_saved(
    name: str, model: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text(as_json.render(MODELS[model]))
    assert FORMATS[name].render(as_json.read(path)) == FORMATS[name].render(MODELS[model])


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_sarif_is_valid(report: Report) -> None:
    schemas.SARIF.validate(json.loads(sarif.render(report)))


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_junit_is_valid(report: Report) -> None:
    assert schemas.junit_faults(ET.fromstring(junit.render(report))) == []  # noqa: S314  # our own


@pytest.mark.parametrize("report", REPORTS.values(), ids=REPORTS)
def test_gitlab_is_valid(report: Report) -> None:
    schemas.GITLAB.validate(json.loads(gitlab.render(report)))


def test_what_is_not_valid_is_noticed() -> None:
    log = json.loads(sarif.render(BROKEN))
    del log["runs"][0]["results"][0]["message"]["text"]
    with pytest.raises(jsonschema.ValidationError):
        schemas.SARIF.validate(log)
    entries = json.loads(gitlab.render(BROKEN))
    entries[0]["severity"] = "high"
    with pytest.raises(jsonschema.ValidationError):
        schemas.GITLAB.validate(entries)
    root = ET.fromstring(junit.render(BROKEN).replace("<skipped", "<skip"))  # noqa: S314  # our own
    assert len(schemas.junit_faults(root)) > 1


def test_the_official_schema_of_sarif() -> None:
    path = schemas.official("sarif-schema-2.1.0.json")
    validator = jsonschema.Draft4Validator(json.loads(path.read_text("utf-8")))
    for report in REPORTS.values():
        validator.validate(json.loads(sarif.render(report)))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**json.loads(sarif.render(BROKEN)), "version": "2.0.0"})


def test_the_official_schema_of_junit() -> None:
    schema = pytest.importorskip("xmlschema").XMLSchema(str(schemas.official("junit-10.xsd")))
    for report in REPORTS.values():
        schema.validate(junit.render(report))
    assert not schema.is_valid(junit.render(BROKEN).replace("<skipped", "<skip"))


PLAIN = "harmless"
HOSTILES = {
    "escapes": HOSTILE,
    "characters": "\u202e\u200f\u2066a\u2028\u2029\ufeff\ufffe\x00\x0b\x1b]0;t\x07\x7f\x85\x9b\udc80\ud800",
    "markup": "</code></pre><script>alert(1)</script><img src=x onerror=alert(1)><!--&#0;\"'",
    "xml": "]]></failure></testcase><!DOCTYPE x [<!ENTITY y 'z'>]>&y;",
    "blocks": "```\n# heading\n\n~~~\n- item\n\n<b>\n\n> quote\n---\n| a | b |\n| - | - |\n",
    "inline": "*a* _b_ `c` ``d`` [x](javascript:alert(1)) ![y](https://example.org/z.png) <https://example.org> \\",
    "addresses": "https://example.org www.example.org a@example.org @someone #1 :smile: $x$ ~~s~~ | x |",
    "commands": "::error file=x::y\n::set-output name=a::b\r\n::stop-commands::c%0A::warning::d,title=e",
    "templates": "{{ 7 * 7 }} {% raw %} {0} %s ${x}",
    "path": "../../a b/%41:1,title=x?query#fragment",
}
UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def saying(report: Report, content: str) -> Report:
    """A hostile report, with other strings of the program in it."""
    changed: Report = mapped(report, lambda text: text.replace(HOSTILE, content))
    return changed


def unsafe(content: str) -> list[str]:
    return [sign for sign in content if unicodedata.category(sign) in UNSAFE and sign != "\n"]


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [each for item in value.values() for each in strings(item)]
    if isinstance(value, list):
        return [each for item in value for each in strings(item)]
    return [value] if isinstance(value, str) else []


def decoded(name: str, written: str) -> list[str]:
    """What a reader of JSON or XML is handed; the tool's own JSON keeps strings as they came."""
    if name in {"sarif", "gitlab"}:
        return strings(json.loads(written))
    if name == "junit":
        root = ET.fromstring(written)  # noqa: S314  # our own
        return [
            *root.itertext(),
            *(value for each in root.iter() for value in each.attrib.values()),
        ]
    return []


def dangers(name: str, written: str, harmless: str) -> list[str]:
    """What strings of the program did to a format, beside being shown."""
    found = unsafe(written)
    try:
        changed = SKELETONS[name](written) != SKELETONS[name](harmless)
        found += unsafe("".join(decoded(name, written)))
    except (ValueError, ET.ParseError, AssertionError) as error:
        return [*found, repr(error)]
    return [*found, *(["skeleton"] if changed else [])]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("hostile", HOSTILES)
@pytest.mark.parametrize("report", ["report", "failure"])
def test_hostile_strings_are_harmless(report: str, hostile: str, name: str) -> None:
    harmless = said(name, report, PLAIN)
    assert PLAIN in harmless
    assert dangers(name, said(name, report, HOSTILES[hostile]), harmless) == []


@cache
def said(name: str, report: str, words: str) -> str:
    """A hostile report that says these words, in a format."""
    hostile = {"report": HOSTILE_REPORT, "failure": HOSTILE_FAILURE}[report]
    return FORMATS[name].render(saying(hostile, words))


@pytest.mark.parametrize(
    ("name", "hostile"),
    [
        *((name, "escapes") for name in FORMATS),
        *((name, "characters") for name in FORMATS),
        ("html", "markup"),
        ("junit", "markup"),
        ("junit", "xml"),
        ("markdown", "markup"),
        ("markdown", "blocks"),
        ("markdown", "inline"),
        ("github", "commands"),
    ],
)
def test_what_is_not_escaped_is_noticed(name: str, hostile: str) -> None:
    harmless = said(name, "report", PLAIN)
    assert dangers(name, harmless.replace(PLAIN, HOSTILES[hostile]), harmless)


WORDS = st.text(alphabet=st.sampled_from("ab1 \t.,:;-+=*_`~#|<>&[]()!\\@$/'\"\n\u202e")) | st.text()


@given(WORDS)
@example("1. www.a.b ~~x~~ http://a.b a|b")
def test_prose_is_shown_as_it_is(content: str) -> None:
    line = " ".join(text.line(content).split())
    for page in (
        f"{prose(content)}\n",
        f"- {prose(content)}\n",
        f"| {prose(content)} |\n| --- |\n",
    ):
        tokens = MARKDOWN.parse(page)
        inline = [token for token in tokens if token.type == "inline"]
        assert "".join(child.content for token in inline for child in token.children or ()) == line
        assert {child.type for token in inline for child in token.children or ()} <= {"text"}
        assert not any(token.type in {"html_block", "heading_open", "fence"} for token in tokens)


@given(WORDS.filter(str.strip))
def test_code_is_shown_as_it_is(content: str) -> None:
    (_, token, _) = MARKDOWN.parse(f"x {code(content)} y\n")
    assert [each.content for each in token.children or ()] == ["x ", text.line(content), " y"]
    (block, after) = MARKDOWN.parse(f"{fenced(content)}\n\n***\n")
    assert (block.content.rstrip("\n"), after.type) == (
        text.block(content, tabs=True).rstrip("\n"),
        "hr",
    )


@pytest.mark.parametrize(
    ("file", "uri"),
    [
        ("train.py", "train.py"),
        ("a b/ü%41.py", "a%20b/%C3%BC%2541.py"),
        ("a:b#c?.py", "a%3Ab%23c%3F.py"),
        ("\udc80.py", "%5Cudc80.py"),
        ("/data/a b.py", "file:///data/a%20b.py"),
    ],
)
def test_addresses_of_files(file: str, uri: str) -> None:
    report = replace(BROKEN, sources=(_moved(RACE, lambda found: replace(found, file=file)),))
    (result,) = json.loads(sarif.render(report))["runs"][0]["results"]
    found = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert found == ({"uri": uri} if file[0] == "/" else {"uri": uri, "uriBaseId": "%SRCROOT%"})


def test_no_words_become_a_link_of_sarif() -> None:
    report = replace(BROKEN, sources=(replace(RACE, reason="x[0](y) and [a](https://b.c)"),))
    (result,) = json.loads(sarif.render(report))["runs"][0]["results"]
    assert "x\\[0\\](y) and \\[a\\](https://b.c)" in result["message"]["text"]


def test_the_way_to_the_loss_is_a_code_flow() -> None:
    (_, result) = json.loads(sarif.render(BROKEN))["runs"][0]["results"]
    (flow,) = result["codeFlows"][0]["threadFlows"]
    said = [each["location"]["message"]["text"] for each in flow["locations"]]
    assert said[0].startswith("the line draws from numpy")
    assert said[1:] == [
        "batch.0 differs (step 0, data)",
        "output differs (step 0, forward)",
        "loss differs (step 0, forward)",
    ]
    region = flow["locations"][0]["location"]["physicalLocation"]["region"]
    assert region == {"startLine": 17, "snippet": {"text": "return x + np.random.rand(64), y"}}


def test_rules_are_explained_by_their_sources() -> None:
    rules = json.loads(sarif.render(BROKEN))["runs"][0]["tool"]["driver"]["rules"]
    assert [rule["name"] for rule in rules] == ["NondeterministicOp", "NumWorkers"]
    for rule in rules:
        assert "## Use instead" in rule["help"]["markdown"]
        assert 100 < len(rule["fullDescription"]["text"]) <= 1000


def test_what_failed_or_was_not_judged_is_a_notification() -> None:
    (failed,) = json.loads(sarif.render(FAILED))["runs"][0]["invocations"]
    (notification,) = failed["toolExecutionNotifications"]
    assert (notification["level"], failed["exitCode"]) == ("error", 3)
    assert "Expected input batch_size (64)" in notification["message"]["text"]
    (broken,) = json.loads(sarif.render(BROKEN))["runs"][0]["invocations"]
    levels = [each["level"] for each in broken["toolExecutionNotifications"]]
    assert (broken["executionSuccessful"], levels) == (True, ["warning", "note", "note", "note"])


def test_a_fingerprint_outlasts_other_lines_and_numbers() -> None:
    def fingerprints(source: SourceResult) -> str:
        (found,) = plain.findings(replace(BROKEN, sources=(source,)))
        return found.fingerprint(BROKEN.target)

    first = fingerprints(RACE)
    assert first == fingerprints(_moved(RACE, lambda found: replace(found, line=90)))
    assert first == fingerprints(replace(RACE, reason="2 of 5 released runs differ", losses=None))
    assert first != fingerprints(_moved(RACE, lambda found: replace(found, code="x = 1")))
    assert first != fingerprints(replace(RACE, id="thread-timing"))


def test_levels_follow_the_required_promise() -> None:
    def levels(require: Scope) -> list[str]:
        return [each.severity.value for each in plain.findings(replace(BROKEN, require=require))]

    assert levels(Scope.RERUN) == ["error", "warning"]
    assert levels(Scope.SETTINGS) == ["error", "error"]
    yardstick = replace(RACE, scope=Scope.NONE)
    (found,) = plain.findings(replace(BROKEN, sources=(yardstick,)))
    assert found.severity is plain.Severity.NOTE


def test_annotations_name_files_from_the_root_of_the_repository() -> None:
    assert "file=examples/train.py,line=17," in github.render(BROKEN, "examples")
