"""Fixtures of several test modules."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import auditing
from tests.sharing import Interpreters

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE = Path(__file__).parent
AUDITS = (HERE / "audit", HERE / "gpu")


settings.register_profile(
    "ours",
    parent=settings.get_profile("ci"),  # derandomised, no database, no deadline
    max_examples=100 if "DEEP" in os.environ else 30,
)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no audits where none is wanted; to collect them takes as long as many a test."""
    unwanted = config.getoption("markexpr") == "not audit" and collection_path in AUDITS
    return True if unwanted else None


def pytest_collection_modifyitems(items: Iterable[pytest.Item]) -> None:
    """Mark what runs trials or starts interpreters: the directory says it, but of single tests among the units."""
    for item in items:
        if any(item.path.is_relative_to(directory) for directory in AUDITS):
            item.add_marker("audit")
        if item.get_closest_marker("deep") and "DEEP" not in os.environ:
            item.add_marker(pytest.mark.skip(reason="DEEP=1 tries it"))


def pytest_collection_finish() -> None:
    """Have no later collection of garbage, be it in a process that a test forks, look at what was imported by now."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def interpreters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreters]:
    """From which the trials of all audits below are forked."""
    with Interpreters(tmp_path_factory.mktemp("interpreters"), fresh=False) as shared:
        yield shared


@pytest.fixture(scope="module")
def shared_interpreters(interpreters: Interpreters) -> Iterator[None]:
    """The audits of a module are made in this process, and share their interpreters."""
    auditing.in_process.append(interpreters.check)
    yield
    auditing.in_process.pop()
