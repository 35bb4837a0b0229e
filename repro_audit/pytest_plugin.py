"""The marker `reproducible`: what the test function returns is audited, as what `build()` returns is."""

from __future__ import annotations

import functools

import pytest

_MARKER = (
    "reproducible(require=…, steps=…, …): audit what the test returns, a model and a loader as from `build()`; takes "
    "the options of repro_audit.audit"
)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Audit a marked test, with its fixtures and parameters, instead of calling it here."""
    marker = pyfuncitem.get_closest_marker("reproducible")
    if marker is None:
        return None
    from repro_audit.api import audit

    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}
    build = functools.partial(pyfuncitem.obj, **given) if given else pyfuncitem.obj
    report = audit(build, *marker.args, **marker.kwargs)
    if report.exit_code:
        pytest.fail(f"{report}", pytrace=False)
    return True
