"""What we write of SARIF, JUnit and GitLab's report, as closed schemas of our own; and where the official ones are.

The official schemas are others' work and no part of this repository. Where `REPRO_AUDIT_SCHEMAS` names a directory with
`sarif-schema-2.1.0.json` (of OASIS) and `junit-10.xsd` (of Jenkins' xUnit plugin), tests validate against them too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from repro_audit.report import sarif

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


def official(name: str) -> Path:
    """An official schema; the test is skipped where there is none."""
    directory = os.environ.get("REPRO_AUDIT_SCHEMAS")
    if directory is None:
        pytest.skip("REPRO_AUDIT_SCHEMAS names no directory")
    return Path(directory) / name


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    """The schema of an object with these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }


def several(items: dict[str, Any], least: int = 0) -> dict[str, Any]:
    """The schema of an array."""
    return {"type": "array", "minItems": least, "items": items}


STRING = {"type": "string", "minLength": 1}
MESSAGE = closed({"text": STRING})
MULTIFORMAT = closed({"text": STRING, "markdown": STRING})
ARTIFACT = {
    "oneOf": [
        closed(
            {
                "uri": {"type": "string", "pattern": "^[^/:][^:]*$"},
                "uriBaseId": {"const": "%SRCROOT%"},
            }
        ),
        closed({"uri": {"type": "string", "pattern": "^file:///"}}),
    ]
}
REGION = closed({"startLine": {"type": "integer", "minimum": 1}}, {"snippet": MESSAGE})
LOGICAL = closed(
    {"kind": {"enum": ["function", "module", "variable"]}},
    {"name": STRING, "fullyQualifiedName": STRING},
)
LOCATION = closed(
    {},
    {
        "physicalLocation": closed({"artifactLocation": ARTIFACT}, {"region": REGION}),
        "logicalLocations": several(LOGICAL, 1),
        "message": MESSAGE,
    },
)
FLOW = closed(
    {"threadFlows": several(closed({"locations": several(closed({"location": LOCATION}), 1)}), 1)}
)
RESULT = closed(
    {
        "ruleId": STRING,
        "ruleIndex": {"type": "integer"},
        "level": {"enum": ["error", "warning", "note"]},
        "message": MULTIFORMAT,
        "locations": several(LOCATION),
        "partialFingerprints": closed(
            {sarif.FINGERPRINT: {"type": "string", "pattern": "^[0-9a-f]{32}$"}}
        ),
    },
    {
        "codeFlows": several(FLOW, 1),
        "relatedLocations": several(LOCATION),
        "properties": {"type": "object"},
    },
)
RULE = closed(
    {
        "id": STRING,
        "name": STRING,
        "shortDescription": MESSAGE,
        "fullDescription": MESSAGE,
        "help": MULTIFORMAT,
        "properties": closed({"tags": several(STRING)}),
    }
)
NOTIFICATION = closed({"level": {"enum": ["error", "warning", "note"]}, "message": MESSAGE})
RUN = closed(
    {
        "tool": closed(
            {"driver": closed({"name": STRING, "version": STRING, "rules": several(RULE)})}
        ),
        "invocations": several(
            closed(
                {
                    "executionSuccessful": {"type": "boolean"},
                    "exitCode": {"enum": [0, 1, 3, 4]},
                    "exitCodeDescription": STRING,
                    "toolExecutionNotifications": several(NOTIFICATION),
                }
            ),
            1,
        ),
        "originalUriBaseIds": {"type": "object"},
        "columnKind": {"const": "unicodeCodePoints"},
        "results": several(RESULT),
        "properties": {"type": "object"},
    }
)
SARIF = jsonschema.Draft202012Validator(
    closed(
        {"$schema": {"const": sarif.SCHEMA}, "version": {"const": "2.1.0"}, "runs": several(RUN, 1)}
    )
)
"""What we write of SARIF 2.1.0, closed: the official schema lets pass what it does not know in some places."""
GITLAB = jsonschema.Draft202012Validator(
    several(
        closed(
            {
                "description": STRING,
                "check_name": STRING,
                "fingerprint": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                "severity": {"enum": ["info", "minor", "major", "critical", "blocker"]},
                "location": closed(
                    {"path": STRING, "lines": closed({"begin": {"type": "integer", "minimum": 1}})}
                ),
            }
        )
    )
)
"""As GitLab documents it."""

_CASE = {"failure", "error", "skipped", "system-out"}
_JUNIT = {
    "testsuites": ({"name", "tests", "failures", "errors", "time"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "skipped", "time"},
        {"properties", "testcase"},
    ),
    "properties": (set(), {"property"}),
    "property": ({"name", "value"}, set()),
    "testcase": ({"classname", "name"}, _CASE),
    "failure": ({"type", "message"}, set()),
    "error": ({"type", "message"}, set()),
    "skipped": ({"message"}, set()),
    "system-out": (set(), set()),
}
"""The attributes of each element, and what may stand in it."""


def junit_faults(root: Element) -> list[str]:
    """What of a document is not as Jenkins reads it."""
    found = []
    for element in root.iter():
        attributes, children = _JUNIT.get(element.tag, ({"no such element"}, set()))
        if set(element.keys()) != attributes or {each.tag for each in element} - children:
            found.append(f"{element.tag} {sorted(element.keys())}")
    for suite in (root, *root.iter("testsuite")):
        for tag, name in (("failure", "failures"), ("error", "errors"), ("testcase", "tests")):
            if suite.get(name) != str(len([*suite.iter(tag)])):
                found.append(f"{name} of {suite.tag}")
    return found
