"""The JSON format: valid under its schema, the whole model, and safe whatever the target is called."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from repro_audit.errors import UsageError
from repro_audit.report import as_json, as_text
from tests.report_models import BROKEN, CLEAN, HOSTILE_REPORT, REPORTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from syrupy.assertion import SnapshotAssertion

    from repro_audit.report.model import Report

VALIDATOR = jsonschema.Draft202012Validator(as_json.schema())
VERSION_1 = json.loads((Path(__file__).parent / "data" / "schema_1.json").read_text("utf-8"))
NUM_WORKERS_INDEX = 5


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(as_json.schema())


def test_schema_is_closed_everywhere() -> None:
    def objects(node: Any) -> list[dict[str, Any]]:
        if isinstance(node, dict):
            own = [node] if node.get("type") == "object" else []
            return own + [found for value in node.values() for found in objects(value)]
        return [found for item in node for found in objects(item)] if isinstance(node, list) else []

    found = objects(as_json.schema())
    assert len(found) > 10
    for node in found:
        closed = node["additionalProperties"]
        if closed is False:
            assert sorted(node["required"]) == sorted(node["properties"])
        else:  # `setting`, a mapping
            assert closed == {"type": "string"}


@pytest.mark.parametrize("name", REPORTS)
def test_every_report_is_valid(name: str) -> None:
    VALIDATOR.validate(json.loads(as_json.render(REPORTS[name])))


def _set(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


BROKEN_SOURCE = ("sources", NUM_WORKERS_INDEX)


@pytest.mark.parametrize(
    "change",
    [
        _set("extra", value=1),
        _set("schema_version", value=1),
        _set("verdict", value="fine"),
        _set("exit_code", value=0),
        _set("require", value="none"),
        _set("scopes", "rerun", value="error"),
        _set("scopes", "extra", value="held"),
        _set("settings", "isolation", value="chroot"),
        _set("settings", "steps", value=0),
        _set("settings", "seed", value="0"),
        _set("target", "mode", value="lightning"),
        _set("environment", "devices", value="cpu"),
        _set("seconds", value="nan"),
        _set(*BROKEN_SOURCE, "id", value="NumWorkers"),
        _set(*BROKEN_SOURCE, "id", value="num_workers"),
        _set(*BROKEN_SOURCE, "status", value="skipped"),
        _set(*BROKEN_SOURCE, "status", value="held"),
        _set(*BROKEN_SOURCE, "confidence", value=None),
        _set(*BROKEN_SOURCE, "scope", value=None),
        _set(*BROKEN_SOURCE, "losses", value=[]),
        _set(*BROKEN_SOURCE, "levels", 0, "diverged", value="yes"),
        _set(*BROKEN_SOURCE, "divergence", "kind", value="sign"),
        _set(*BROKEN_SOURCE, "divergence", "phase", value="validation"),
        _set(*BROKEN_SOURCE, "divergence", "max_abs", value="infinite"),
        _set(*BROKEN_SOURCE, "divergence", "max_ulp", value=0.5),
        _set(*BROKEN_SOURCE, "divergence", "detail", value=None),
        _set(*BROKEN_SOURCE, "divergence", "location", "line", value=0),
        _set(*BROKEN_SOURCE, "fix", "proof", value=None),
        _set(*BROKEN_SOURCE, "divergence", "cause", "location", "line", value=0),
        _set("sources", 0, "confidence", value="proven"),
        _set("sources", 3, "reason", value=""),
        _set("trials", 0, "status", value="killed"),
        _set("trials", 1, "setting", "Num Workers", value="0"),
        _set("trials", 1, "setting", "num-workers", value=0),
        lambda document: document.pop("unexplained"),
        lambda document: document["sources"][0].pop("fix"),
    ],
)
def test_schema_refuses(change: Callable[[Any], None]) -> None:
    document = copy.deepcopy(as_json.document(BROKEN))
    VALIDATOR.validate(document)

    change(document)

    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


def by_bits(report: object) -> str:
    """Not by `==`: NaN is not equal to itself."""
    return repr(report)


@pytest.mark.parametrize("name", REPORTS)
def test_a_saved_report_is_read_back_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(as_json.render(REPORTS[name]))
    read = as_json.read(path)
    if name.startswith("hostile"):  # its texts are bounded, and surrogates in them are escapes
        again = tmp_path / "again.json"
        again.write_text(as_json.render(read))
        assert by_bits(as_json.read(again).decision) == by_bits(read.decision)
    else:
        assert by_bits(read) == by_bits(REPORTS[name])
    assert read.decision == REPORTS[name].decision


def as_version_1(document: Any, schema: Any) -> Any:
    """What version 1 has of a document of version 2."""
    if isinstance(document, list):
        return [as_version_1(item, schema.get("items", {})) for item in document]
    for choice in schema.get("anyOf", [schema]):
        name = choice.get("$ref", "").rpartition("/")[2]
        schema = VERSION_1["$defs"][name] if name else choice
        if isinstance(document, dict) and "properties" in schema:
            return {
                key: as_version_1(document[key], each) for key, each in schema["properties"].items()
            }
    return document


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_of_version_1_is_read(name: str, tmp_path: Path) -> None:
    document = as_version_1({**as_json.document(REPORTS[name]), "schema_version": 1}, VERSION_1)
    jsonschema.Draft202012Validator(VERSION_1).validate(document)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    read = as_json.read(path)
    assert read.decision == REPORTS[name].decision
    again = as_version_1({**as_json.document(read), "schema_version": 1}, VERSION_1)
    if not name.startswith("hostile"):
        assert again == document


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "it is no JSON"),
        ("[]", "it has no schema version"),
        ('{"schema_version": 3}', "update repro-audit"),
        ('{"schema_version": 2}', "no whole report"),
        ('{"schema_version": 1}', "no whole report"),
        ('{"schema_version": []}', "it has no schema version"),
        ("[" * 100_000, "it is no JSON"),
    ],
)
def test_what_is_no_report_is_refused(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UsageError) as refused:
        as_json.read(path)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        _set(*BROKEN_SOURCE, "divergence", "cause", "location", "line", value="17"),
        _set(*BROKEN_SOURCE, "status", value="fine"),
        _set("trials", 1, "setting", "num-workers", value=0),
        _set("seconds", value="soon"),
        _set("seconds", value=10**400),
        _set("target", value="train.py"),
        _set("settings", value=[]),
        _set("trials", value=None),
        _set("trials", 1, "setting", value="num-workers"),
        _set(*BROKEN_SOURCE, "losses", value={}),
        _set(*BROKEN_SOURCE, "divergence", value=0),
        lambda document: document["environment"].pop("cpu"),
    ],
)
def test_a_report_with_a_fault_is_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    document = as_json.document(BROKEN)
    change(document)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="no whole report"):
        as_json.read(path)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf"])
def test_numbers_that_no_audit_writes_are_shown(seconds: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    document = {**as_json.document(BROKEN), "seconds": seconds}
    _set(*BROKEN_SOURCE, "divergence", "size", "mismatched", value=10**400)(document)
    path.write_text(json.dumps(document))
    assert f"{seconds} s" in as_text.render(as_json.read(path))


@pytest.mark.parametrize("scope", ["rerun", "settings", "portable"])
def test_schema_refuses_a_verdict_against_its_scopes(scope: str) -> None:
    document = as_json.document(CLEAN)
    document["require"] = scope
    VALIDATOR.validate(document)

    document["scopes"][scope] = "broke"

    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


def test_document_of_a_broken_program(snapshot: SnapshotAssertion) -> None:
    assert as_json.render(BROKEN) == snapshot


def test_numbers_that_are_not_finite_are_strings() -> None:
    document = as_json.document(HOSTILE_REPORT)

    assert document["sources"][0]["divergence"]["max_abs"] == "nan"
    assert document["unexplained"]["max_abs"] == "inf"


def test_hostile_strings_are_bounded_ascii() -> None:
    written = as_json.render(HOSTILE_REPORT)

    assert all(character == "\n" or " " <= character < "\x7f" for character in written)
    spec = json.loads(written)["target"]["spec"]
    assert spec.startswith("\x1b[31mred")
    assert "\\udc80" in spec
    assert len(spec) < 5_000
    assert len(written) < 200_000


@pytest.mark.parametrize("report", [BROKEN, CLEAN])
def test_document_is_a_function_of_the_report(report: Report) -> None:
    assert as_json.render(report) == as_json.render(replace(report))
