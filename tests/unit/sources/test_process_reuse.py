"""Where a second run in the same process is tried."""

from __future__ import annotations

from repro_audit.source import Levels
from repro_audit.sources.process_reuse import SECOND, levels
from repro_audit.storage.facts import Facts


def test_a_script_runs_once_and_the_rest_may_run_again() -> None:
    assert levels(Facts(runs_once=True)) == "a script runs once in its process"
    assert levels(Facts()) == Levels(varied=(SECOND,))
