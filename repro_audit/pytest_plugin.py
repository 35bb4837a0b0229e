"""The marker `reproducible`: what the test function returns is audited, as what `build()` returns is."""

from __future__ import annotations

import functools
import inspect
import unittest

import pytest

_MARKER = (
    "reproducible(require=…, steps=…, …): audit what the test returns, a model and a loader as from `build()`; takes "
    "the options of repro_audit.audit"
)

_SKIPPED = f"{pytest.skip.Exception.__name__}: "


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a marked test that is run in another way than by a call of its function: it would pass unaudited."""
    if item.get_closest_marker("reproducible") is None:
        return
    is_case = isinstance(item, pytest.Function) and issubclass(
        item.cls or object, unittest.TestCase
    )
    is_awaited = isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj)
    if is_case or is_awaited or not isinstance(item, pytest.Function):
        what = "a method of a TestCase" if is_case else "awaited" if is_awaited else "no function"
        pytest.fail(
            f"{item.name} is {what}, and the marker can not audit what it returns; "
            "call repro_audit.assert_reproducible(build) in it instead",
            pytrace=False,
        )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Audit a marked test, with its fixtures and parameters, instead of calling it here."""
    marker = pyfuncitem.get_closest_marker("reproducible")
    if marker is None:
        return None
    from repro_audit.api import audit
    from repro_audit.errors import UsageError

    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}
    build = pyfuncitem.obj
    if given:
        build = functools.partial(build, **given)
        build.__qualname__ = pyfuncitem.name  # type: ignore[attr-defined]  # by which the report calls it
    try:
        report = audit(build, *marker.args, **marker.kwargs)
    except UsageError as error:
        pytest.fail(f"{error}", pytrace=False)
    skipped = "" if report.failure is None else report.failure.what
    if skipped.startswith(_SKIPPED):  # `pytest.skip` raises it
        pytest.skip(skipped.removeprefix(_SKIPPED))
    if report.exit_code:
        pytest.fail(f"{report}", pytrace=False)
    return True
