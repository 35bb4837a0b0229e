"""What a function is audited as, and where its trials import from."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from repro_audit.api import _importing_alike, audit
from repro_audit.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_trials_import_from_where_this_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, beside = tmp_path / "env", tmp_path / "env-models"
    below, library = prefix / "src", prefix / "lib" / "python3" / "site-packages"
    monkeypatch.setattr(sys, "prefix", str(prefix))
    monkeypatch.setattr(sys, "path", ["", str(library), str(below), str(beside), "relative"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with _importing_alike():
        places = os.environ["PYTHONPATH"].split(os.pathsep)
    assert places == [str(below), str(beside), str(tmp_path / "relative")]
    assert "PYTHONPATH" not in os.environ


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(UsageError, match="3 is neither a function nor a text"):
        audit(3)  # type: ignore[arg-type]
