"""Fixtures of several test modules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.sharing import Interpreters

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreters]:
    """Interpreters for all audits of a module."""
    with Interpreters(tmp_path_factory.mktemp("interpreters")) as shared:
        yield shared
