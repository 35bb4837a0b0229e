"""`repro-audit sources` and `repro-audit explain ID`: whole, within 80 columns, plain when piped."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace

import pytest

from repro_audit.report import explanation, listing
from repro_audit.report.explanation import program, sections
from repro_audit.report.terminal import stdout_console
from repro_audit.source import Scope, Source
from repro_audit.sources import catalogue
from repro_audit.sources._exercise import A_DEVICE, Answer, prospect, this_machine
from repro_audit.sources._plugins import Plugins
from tests.auditing import REPOSITORY, environment

NO_PLUGINS = Plugins(sources={}, places={}, broken={})


def explained(source: Source, width: int = 80) -> str:
    file = io.StringIO()
    explanation.print_source(source, stdout_console(file, width=width))
    return file.getvalue()


def listed(width: int = 80, plugins: Plugins = NO_PLUGINS) -> str:
    file = io.StringIO()
    listing.print_catalogue(catalogue(), plugins, stdout_console(file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("source", catalogue().values(), ids=lambda source: source.id)
def test_the_whole_docstring_is_there_within_80_columns(source: Source) -> None:
    page = explained(source)
    assert "\x1b" not in page
    assert all(len(line) <= 80 or "https://" in line for line in page.splitlines()), page
    for section in ("Example", "Use instead"):
        for line in program(sections(source.doc or "")[section]).splitlines():
            assert f"    {line}".rstrip() in page.splitlines()
    said = set(page.split())
    prose = (source.doc or "").replace("`", "").replace("*", "").replace("<", "").replace(">", "")
    missing = set(prose.split()) - said - {"##", "python"}
    assert {word for word in missing if word.isalnum()} == set()
    assert all(option.name in page for option in source.options)


def test_code_and_addresses_stay_whole_on_a_narrow_terminal() -> None:
    page = explained(catalogue()["nondeterministic-op"], width=40)
    assert "        return self.kinds[atoms].mean(1)\n" in page
    assert "    https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic" in page
    prose = page[: page.index("Example")].splitlines()
    assert max(map(len, prose)) <= 40


def test_a_docstring_of_another_form_is_printed_too() -> None:
    doc = "One line.\n\n## References\n- no address\n- one: <https://example.org/a>\n"
    source = replace(catalogue()["torch-rng"], doc=doc)
    page = explained(source)
    assert "no address" in page
    assert "example.org/a" in page
    assert explained(replace(source, doc=None)).startswith("torch-rng ")


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_table_lists_every_source(width: int) -> None:
    page = listed(width)
    assert all(len(line) <= width for line in page.splitlines())
    # Titles are indented, and may begin with the word that is an id.
    ids = [line.split()[0] for line in page.splitlines() if line.strip() and line[0] != " "]
    assert [name for name in ids if name in catalogue()] == list(catalogue())
    said = " ".join(page.split())
    for source in catalogue().values():
        assert source.title in said
        assert width != 120 or source.scope is Scope.NONE or f"{source.id} " in page
    if width == 120:
        assert "hash-seed rerun 0 / 1; 2 yes" in said


def test_the_table_names_plugins_and_those_left_out() -> None:
    plugins = Plugins(
        sources={}, places={"hash-seed": "acme.luck"}, broken={"acme.bad": "no licence"}
    )
    said = " ".join(listed(plugins=plugins).split())
    assert "decide the result (plugin acme.luck)" in said
    assert said.endswith("note: the plugin acme.bad is left out: no licence")


@pytest.mark.parametrize("source", catalogue().values(), ids=lambda source: source.id)
def test_every_source_answers_whether_it_can_be_exercised(source: Source) -> None:
    without = prospect(source, replace(this_machine(), cuda=""))
    assert (without.answer is Answer.NO) is bool(without.reason)
    assert without.answer is Answer.NO or source.id not in {"cuda-rng", "cudnn-benchmark"}


def test_a_cuda_device_makes_the_difference() -> None:
    there = replace(this_machine(), cuda=A_DEVICE)
    assert prospect(catalogue()["cuda-rng"], there).answer is Answer.YES
    absent = prospect(catalogue()["cuda-rng"], replace(there, cuda=""))
    assert (absent.answer, absent.reason, absent.varied) == (Answer.NO, "no CUDA device", ("B",))
    assert prospect(catalogue()["cudnn-deterministic"], there).answer is Answer.YES
    assert prospect(catalogue()["lstm-dropout"], there).answer is Answer.BY_PROGRAM


@pytest.mark.audit
def test_the_commands() -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "repro_audit", *arguments],
            cwd=REPOSITORY,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )

    table, page, unknown = run("sources"), run("explain", "hash-seed"), run("explain", "hash-sed")
    assert (table.returncode, table.stdout) == (0, listed())
    assert (page.returncode, page.stdout) == (0, explained(catalogue()["hash-seed"]))
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "did you mean hash-seed?" in unknown.stderr
    text = run("check", "--help").stdout
    assert "Optimizer steps a trial. (default: 8)" in " ".join(text.replace("│", " ").split())
    assert "--no-pinpoint" in text
