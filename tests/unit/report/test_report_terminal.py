"""The terminal format: snapshots of hand-made models, and promises that hold at every width."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import unicodedata
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from repro_audit.errors import UsageError
from repro_audit.report import terminal, text
from repro_audit.report.model import LossCurve, Report, SourceResult, SourceStatus
from repro_audit.report.progress import Progress
from repro_audit.report.style import TerminalStyle
from repro_audit.report.terminal import (
    print_report,
    print_whole,
    stderr_console,
    verdict_line,
)
from repro_audit.source import Scope
from tests.report_models import (
    BROKEN,
    CLEAN,
    FAILED,
    HOSTILE_FAILURE,
    HOSTILE_REPORT,
    NUM_WORKERS,
    RACE,
    REPORTS,
    SAMPLE_SOURCES,
    source,
)

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

PLAIN = [name for name in REPORTS if not name.startswith("hostile")]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "COLUMNS",
        "LINES",
        "NO_COLOR",
        "FORCE_COLOR",
        "TTY_COMPATIBLE",
        "TTY_INTERACTIVE",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """As a terminal does."""
        return True


def printed(
    report: Report,
    width: int = 80,
    stream: io.StringIO | None = None,
    *,
    verbose: bool = False,
) -> str:
    file = io.StringIO() if stream is None else stream
    print_report(report, stderr_console(file, width=width), verbose=verbose)
    return file.getvalue()


def printed_ascii(report: Report, *, verbose: bool = False) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", errors="strict")
    print_report(report, stderr_console(file, width=80), verbose=verbose)
    return raw.getvalue().decode("ascii")


@pytest.mark.parametrize("width", [50, 80, 120])
@pytest.mark.parametrize("name", PLAIN)
def test_page(name: str, width: int, snapshot: SnapshotAssertion) -> None:
    assert printed(REPORTS[name], width) == snapshot


@pytest.mark.parametrize("name", PLAIN)
def test_whole_page(name: str, snapshot: SnapshotAssertion) -> None:
    assert printed(REPORTS[name], verbose=True) == snapshot


@pytest.mark.parametrize("name", ["broken", "failed"])
def test_page_in_ascii(name: str, snapshot: SnapshotAssertion) -> None:
    assert printed_ascii(REPORTS[name]) == snapshot


def test_whole_page_in_ascii(snapshot: SnapshotAssertion) -> None:
    assert printed_ascii(BROKEN, verbose=True) == snapshot


def test_whole_page_at_40_columns(snapshot: SnapshotAssertion) -> None:
    assert printed(BROKEN, 40, verbose=True) == snapshot


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("name", REPORTS)
@pytest.mark.parametrize("width", [20, 40, 80, 100])
def test_lines_fit_and_end_without_blanks(name: str, width: int, *, verbose: bool) -> None:
    """But for the code of a fix, whose lines stay whole."""
    fixes = [source.fix.snippet for source in REPORTS[name].sources if source.fix is not None]
    whole = {line.strip() for fix in fixes for line in text.block(fix).splitlines()}
    for line in printed(REPORTS[name], width, verbose=verbose).splitlines():
        assert line == line.rstrip()
        assert cell_len(line) <= width or line.strip() in whole


def test_the_code_of_a_fix_can_be_copied_from_a_narrow_page() -> None:
    assert NUM_WORKERS.fix is not None
    shown = [line.removeprefix("    ") for line in printed(BROKEN, 40, verbose=True).splitlines()]
    code = NUM_WORKERS.fix.snippet.rstrip().splitlines()
    start = shown.index(code[0])
    assert shown[start : start + len(code)] == code


def findings(page: str) -> list[list[str]]:
    """The lines of each finding on a page."""
    sections = page.split("\n\n")[1:]
    return [section.splitlines() for section in sections if section.startswith("✗")]


FOUR = replace(
    BROKEN,
    sources=(
        *SAMPLE_SOURCES,
        replace(
            RACE, id="object-address", title="Where objects lie in memory decides the order " * 3
        ),
        replace(NUM_WORKERS, id="process-reuse", reason="as long a reason as there is " * 9),
    ),
    notes=("a note of two lines " * 6,),
    further=("train.py:9 may write last.pt " * 9,),
)
"""Four findings, and all else that a page may have."""


@pytest.mark.parametrize("name", REPORTS)
def test_a_finding_has_at_most_eight_lines(name: str) -> None:
    found = findings(printed(REPORTS[name]))

    assert len(found) == sum(
        (
            *(source.status is SourceStatus.BROKE for source in REPORTS[name].sources),
            REPORTS[name].unexplained is not None,
        )
    ) * (REPORTS[name].failure is None)
    assert all(len(lines) <= 8 for lines in found)


def test_the_lines_of_a_finding_are_counted() -> None:
    assert any(len(lines) > 8 for lines in findings(printed(BROKEN, verbose=True)))


def test_four_findings_fit_on_a_screen() -> None:
    page = printed(FOUR)

    assert len(findings(page)) == 4
    assert len(page.splitlines()) < 50
    assert len(printed(FOUR, verbose=True).splitlines()) > 50


def test_a_clean_audit_has_at_most_twelve_lines() -> None:
    conditions = ("PyTorch's CPU generator (torch.manual_seed)", "Python's random (random.seed)")
    seeded = [
        replace(source(f"s{number}", status=SourceStatus.DELEGATED), condition=condition)
        for number, condition in enumerate(conditions)
    ]
    report = replace(CLEAN, sources=(*CLEAN.sources, *seeded), further=FOUR.further * 3)

    assert printed(report).count("\n") <= 12
    assert printed(report, verbose=True).count("\n") > 12


def test_a_finding_says_where_how_much_and_what_to_write() -> None:
    race, workers = findings(printed(BROKEN))

    assert race[0].startswith("✗ nondeterministic-op  breaks rerun, suspected ─")
    assert workers[0].startswith("✗ num-workers  breaks settings, proven; fix verified ─")
    for said in (
        "  The number of DataLoader workers changes what the samples hold",
        "  where  train.py:17  return x + np.random.rand(64), y",
        "  since  step 0, data, batch.0: 100% of elements, by up to 0.912",
        "  loss   ·▂▁█  differs by 2e-07 at step 1, 0.0012 at step 3",
        "  fix    Seed every generator in each worker",
    ):
        assert said in workers


def test_of_other_lines_that_part_the_runs_there_is_the_number() -> None:
    assert NUM_WORKERS.divergence is not None
    cause = NUM_WORKERS.divergence.cause
    assert cause is not None
    assert cause.location is not None
    other = replace(cause, location=replace(cause.location, line=23))
    divergence = replace(
        NUM_WORKERS.divergence, cause=replace(cause, also=(other, other, replace(cause)))
    )
    report = replace(BROKEN, sources=(replace(NUM_WORKERS, divergence=divergence),))

    assert "where  train.py:17 (and 1 more)  return x" in printed(report)
    assert "(and" not in printed(BROKEN)


def test_what_was_not_tried_is_one_line() -> None:
    untried = [line for line in printed(BROKEN).splitlines() if "not tried" in line]

    assert untried == ["  not tried  5 of 16 sources; -v says why"]
    assert "no CUDA device" not in printed(BROKEN)
    assert "no CUDA device" in printed(BROKEN, verbose=True)


def test_where_all_was_tried_nothing_is_said_of_it() -> None:
    report = replace(CLEAN, sources=(source("hash-seed"),))

    assert "not tried" not in printed(report)


def test_what_could_not_be_tried_is_said_with_its_reason() -> None:
    assert "error      hash-seed: no run came to an end" in printed(REPORTS["inconclusive"])


def test_lines_stay_readable_on_a_wide_terminal() -> None:
    assert max(map(len, printed(BROKEN, 300, verbose=True).splitlines())) <= 120


def finding(report: Report, id: str) -> str:  # noqa: A002  # the field's name
    look, file = TerminalStyle(), io.StringIO()
    print_whole([terminal.finding(report, id, look)], stderr_console(file, width=80), look)
    return file.getvalue()


@pytest.mark.parametrize(
    ("report", "id"), [(BROKEN, "num-workers"), (REPORTS["unexplained"], "unexplained")]
)
def test_one_finding_whole(report: Report, id: str) -> None:  # noqa: A002  # the field's name
    first, *panel = finding(report, id).splitlines()

    assert first.startswith(f"✗ {id}  breaks ")
    assert len(panel) > 2
    assert not any(line.startswith(("✗", "repro-audit")) for line in panel)


@pytest.mark.parametrize("id", ["unexplained", "hash-seed", "num-worker"])
def test_a_finding_that_is_none(id: str) -> None:  # noqa: A002  # the field's name
    with pytest.raises(UsageError, match=f"there is no finding '{id}'"):
        finding(BROKEN, id)


@pytest.mark.parametrize("width", [20, 40, 80])
def test_nothing_is_cut_off(width: int) -> None:
    page = "".join(printed(BROKEN, width, verbose=True).split())

    assert RACE.divergence is not None
    assert RACE.divergence.name is not None
    for content in (
        RACE.divergence.name,
        "models/graph.py:41 in forward",
        "messages = nodes[edges[0]]",
        "loader = DataLoader(data, batch_size=64, num_workers=2, worker_init_fn=seed_worker)",
        "4 threads: the run was killed by SIGSEGV",
        "max ulp 1,065,353,216",
    ):
        assert "".join(content.split()) in page


@pytest.mark.parametrize("report", [HOSTILE_REPORT, HOSTILE_FAILURE])
@pytest.mark.parametrize("width", [40, 80])
def test_hostile_strings_are_shown_and_not_obeyed(report: Report, width: int) -> None:
    short = printed(report, width)
    page = printed(report, width, verbose=True)

    assert report.failure or len(short) < 10_000
    assert {unicodedata.category(c) for c in short + page if c != "\n"}.isdisjoint(
        {"Cc", "Cf", "Cs"}
    )
    assert "\\x1b[31mred" in page
    assert "[bold]" in page
    assert ":smile:" in page
    assert len(page) < 100_000


def test_hostile_strings_in_colour_bring_no_codes_of_their_own() -> None:
    page = printed(HOSTILE_REPORT, stream=Terminal()) + printed(
        HOSTILE_REPORT, stream=Terminal(), verbose=True
    )

    assert "\x1b[" in page
    for forbidden in ("\x1b[31mred", "\x07", "\r", "\x9b", "\u202e", "\udc80"):
        assert forbidden not in page


def test_a_gigabyte_is_not_walked_through() -> None:
    class Huge(str):
        __slots__ = ()

        def __iter__(self) -> None:  # type: ignore[override]
            raise AssertionError

        def __len__(self) -> int:
            return 10**9

    assert text.line(Huge("x" * 1000)).endswith("[999999000 characters left out]")
    assert text.block(Huge("x" * 30_000)).startswith("[999980000 characters left out]")


def test_streams_that_can_not_hold_a_character() -> None:
    report = replace(BROKEN, assumptions=("perte \N{LATIN SMALL LETTER E WITH ACUTE} \N{EM DASH}",))

    assert "perte \\xe9 -" in printed_ascii(report, verbose=True)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colour_where_none_is_wanted(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    page = printed(BROKEN, stream=Terminal())

    colours = [part.split("m")[0] for part in page.split("\x1b[")[1:]]
    assert all(code in {"0", "1", "2", "4", "7", "0;1", "0;2", "1;7", "0;1;7"} for code in colours)


def test_colour_on_a_terminal() -> None:
    assert "\x1b[1;31m" in printed(BROKEN, stream=Terminal())


def _one(scope: Scope, status: SourceStatus) -> SourceResult:
    return source(f"a-{scope.value}", scope, status)


@pytest.mark.parametrize("require", [Scope.RERUN, Scope.SETTINGS, Scope.PORTABLE])
def test_the_verdict_says_what_it_is_and_the_exit_code(require: Scope) -> None:
    for statuses in product(SourceStatus, repeat=3):
        sources = tuple(map(_one, (Scope.RERUN, Scope.SETTINGS, Scope.PORTABLE), statuses))
        report = replace(CLEAN, sources=sources, require=require)

        line = verdict_line(report, TerminalStyle()).plain

        assert len(line) <= 2 * 80
        assert f"(exit {report.exit_code}; {require.value} required)" in line
        assert report.verdict.value.replace("-", " ").upper() in line


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("name", REPORTS)
def test_page_begins_with_the_verdict(name: str, *, verbose: bool) -> None:
    first, then, *_ = printed(REPORTS[name], verbose=verbose).splitlines()

    assert f"(exit {REPORTS[name].exit_code}" in f"{first} {then}"


def test_reproducible_says_what_was_not_tried() -> None:
    untried = _one(Scope.SETTINGS, SourceStatus.NOT_EXERCISED)
    report = replace(CLEAN, sources=(untried,), require=Scope.SETTINGS)

    line = verdict_line(report, TerminalStyle()).plain
    assert "REPRODUCIBLE on rerun as far as tried: 0 of 0; settings untested" in line


def test_verdict_says_how_much_was_tried_and_what_it_hangs_on() -> None:
    seeded = replace(
        source("torch-rng", status=SourceStatus.DELEGATED, reason="not seeded"),
        condition="PyTorch's CPU generator (torch.manual_seed)",
    )
    untried = source("clock", status=SourceStatus.NOT_EXERCISED, reason="left out by --only")
    report = replace(CLEAN, sources=(seeded, untried), further=("train.py:9 writes later",))

    page = " ".join(printed(report).split())
    assert "REPRODUCIBLE on rerun as far as tried: 1 of 2 (exit 0" in page
    assert "only if the caller seeds PyTorch's CPU generator (torch.manual_seed)" in page
    assert "further train.py:9 writes later" in page
    broken = replace(report, sources=(*report.sources, source("b", status=SourceStatus.BROKE)))
    assert "only if" not in printed(broken)


def test_nothing_at_stake_stands_at_the_top() -> None:
    report = replace(CLEAN, nothing_at_stake="the loss is nan from the first step on")

    first, why, *rest = printed(report).splitlines()
    assert first == "? INCONCLUSIVE: nothing was at stake (exit 4; rerun required)"
    assert why == "  at stake  nothing: the loss is nan from the first step on"
    assert not any("held" in line for line in rest)


def test_equal_losses_say_that_they_hide_the_difference() -> None:
    curve = LossCurve(label="a", values=(1.0, 0.5))
    report = replace(BROKEN, sources=(replace(NUM_WORKERS, losses=(curve, curve)),))

    assert "the same at 2 steps: the loss does not show this difference" in printed(report)


def test_losses_of_a_run_that_ended_early() -> None:
    curves = (LossCurve(label="a", values=(1.0, 0.5)), LossCurve(label="b", values=(1.0,)))
    report = replace(BROKEN, sources=(replace(NUM_WORKERS, losses=curves),))

    assert "ended" in printed(report, verbose=True)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(finite, finite), max_size=5))
def test_different_losses_look_different(pairs: list[tuple[float, float]]) -> None:
    digits = text.telling_digits(pairs)

    for a, b in pairs:
        assert (text.loss(a, digits) == text.loss(b, digits)) == text.same_number(a, b)


@given(st.integers(0, 10**12), st.integers(1, 10**12))
def test_share_is_whole_only_where_it_is(part: int, rest: int) -> None:
    whole = part + rest

    assert text.share(whole, whole) == "100%"
    assert text.share(part, whole) != "100%"
    assert (text.share(part, whole) == "0%") == (part == 0)


@given(st.text())
def test_line_is_one_printable_line(content: str) -> None:
    shown = text.line(content)

    assert len(shown.splitlines()) <= 1
    assert text.line(shown) == shown
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (200.4, "3 min 20 s"), (3600, "60 min 0 s")],
)
def test_seconds(value: float, shown: str) -> None:
    assert text.seconds(value) == shown


def test_output_shows_where_a_progress_bar_ended() -> None:
    page = printed(FAILED)

    assert "100%|##########" in page
    assert " 50%|#####" not in page


def test_progress_counts_what_runs_and_what_ended() -> None:
    progress = Progress(stream=io.StringIO())
    progress.plan(2)
    progress.begin("t00", "floor")
    progress.begin("t01", "num-workers: 0")
    assert progress.line == "0 of ? trials  num-workers: 0 (+1)"

    progress.end("t01")
    progress.end("t01")
    progress.foresee(3)

    assert progress.line == "1 of ~5 trials  floor"


def test_progress_tells_how_long_the_rest_may_take() -> None:
    now = 100.0
    progress = Progress(stream=io.StringIO(), clock=lambda: now)
    progress.plan(1)
    progress.begin("t00", "floor")
    now += 8
    progress.end("t00")
    progress.foresee(11)
    assert progress.line == "1 of ~12 trials"

    progress.plan(2)
    for trial in ("t01", "t02"):
        progress.begin(trial, "")
        now += 1
        progress.end(trial)
    assert progress.line == "3 of ~12 trials, ~30 s left"

    now += 180
    assert progress.line == "3 of ~12 trials, ~10 min left"


def test_progress_foresees_that_what_differs_is_followed_up() -> None:
    progress = Progress(stream=io.StringIO())
    progress.plan(1)
    progress.foresee(11)
    progress.plan(11)
    assert progress.line == "0 of ~12 trials"

    progress.plan(1)
    assert progress.line == "0 of ~24 trials"
    progress.plan(11)
    assert progress.line == "0 of ~24 trials"


@pytest.mark.parametrize(
    ("quiet", "stream", "term", "silent"),
    [
        (False, Terminal, "xterm", False),
        (True, Terminal, "xterm", True),
        (False, io.StringIO, "xterm", True),
        (False, Terminal, "dumb", True),
    ],
)
def test_progress_silent_where_nobody_watches(
    *,
    quiet: bool,
    stream: type[io.StringIO],
    term: str,
    silent: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", term)
    file = stream()

    with Progress(quiet=quiet, stream=file) as progress:
        progress.begin("t00", "num-workers: 0 \x1b[2J[red]")
        progress.end("t00")

    assert (file.getvalue() == "") == silent
    assert "\x1b[2J" not in file.getvalue()


def test_progress_is_taken_away_after_an_interrupt() -> None:
    file = Terminal()

    with pytest.raises(KeyboardInterrupt), Progress(stream=file):
        raise KeyboardInterrupt

    assert file.getvalue().endswith("\x1b[2K")
    assert "\x1b[?25h" in file.getvalue()


@pytest.mark.audit
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("repro_audit.report.model", ("rich", "pygments", "torch", "numpy", "jsonschema")),
        ("repro_audit.report.as_json", ("rich", "pygments", "torch", "numpy", "jsonschema")),
        ("repro_audit.report.progress", ("rich", "pygments", "torch", "numpy")),
        ("repro_audit.report.terminal", ("pygments", "torch", "numpy")),
    ],
)
def test_import_is_light(module: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(*(n for n in {heavy!r} if n in sys.modules))"

    run = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )

    assert run.stdout.strip() == ""
