"""`repro-audit rng` as a user runs it, and what it shows of generators that this machine need not have."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from torch.utils.data import DataLoader, Dataset
from typer.testing import CliRunner

from repro_audit.cli import app
from repro_audit.errors import UsageError
from repro_audit.report import generators as pages
from repro_audit.report.style import TerminalStyle
from repro_audit.report.terminal import print_whole, stdout_console
from repro_audit.rng import Lcg, fork_rng, generators, seed_everything
from repro_audit.rng.lcg.anatomy import Anatomy, dissect
from repro_audit.rng.lcg.integers import parse_integer

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion

    from repro_audit.rng.inventory import GeneratorFacts

ANSI_C = Lcg(multiplier=1103515245, increment=12345, modulus=2**31)
SAMPLES = {
    "ansi-c": (ANSI_C, 1),
    "fixed-point": (Lcg(multiplier=5, increment=0, modulus=12), 3),
    "tail": (Lcg(multiplier=6, increment=1, modulus=72), 1),
    "one": (Lcg(multiplier=0, increment=0, modulus=1), 0),
    "not-factored": (
        Lcg(multiplier=5, increment=3, modulus=(10**30 + 57) * (10**31 + 33)),
        1,
    ),
}


@cache
def dissected(name: str) -> Anatomy:
    return dissect(*SAMPLES[name])


def printed(name: str, width: int, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    console = stdout_console(io.TextIOWrapper(raw, encoding=encoding), width=width)
    look = TerminalStyle.of(console)
    print_whole([pages.anatomy(dissected(name), look)], console, look)
    return raw.getvalue().decode(encoding)


@pytest.mark.parametrize("name", SAMPLES)
def test_page(name: str, snapshot: SnapshotAssertion) -> None:
    assert printed(name, 80) == snapshot


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("name", SAMPLES)
def test_lines_fit_and_nothing_is_cut_off(name: str, width: int) -> None:
    page = printed(name, width)
    for line in page.splitlines():
        assert line == line.rstrip()
        assert cell_len(line) <= width
    assert str(SAMPLES[name][0].modulus) in "".join(page.split())


def test_page_in_ascii() -> None:
    page = printed("fixed-point", 80, "ascii")
    assert "x gcd(B, M) = 12; wanted: 1" in page
    assert "\\u" not in page


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["rng", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    return result.output


class TestCommands:
    def test_show(self) -> None:
        with fork_rng():
            torch.manual_seed(1234)
            found = {entry["name"]: entry for entry in json.loads(run("show", "--json"))}
            page = run("show")
        assert found["random"]["engine"] == found["numpy.random"]["engine"] == "MT19937"
        assert found["default_rng()"]["engine"] == "PCG64"
        assert found["torch cpu"]["engine"] == "mt19937"
        assert found["torch cpu"]["seed"] == 1234
        assert found["torch cpu"]["state_bytes"] == torch.get_rng_state().numel()
        assert "1234" in page
        assert all(name in page for name in found)

    def test_identify(self) -> None:
        found = {entry["name"]: entry for entry in json.loads(run("identify", "--json"))}
        assert [name for name, entry in found.items() if entry["proven"]] == [
            *("torch cpu", "numpy.random", "random", "default_rng()"),
            *(["torch cuda"] if torch.cuda.is_available() else []),
        ]
        assert "2,000 of 2,000 next outputs" in run("identify")

    def test_lcg(self) -> None:
        assert run("lcg", "1103515245", "12345", "2**31") == printed("ansi-c", 80)
        found = json.loads(run("lcg", "5", "3", "0x10", "--seed", "2*3", "--json"))
        assert found["hull_dobell"]["full"] is True
        assert found["orbit"]["period"] == 16
        assert found["outputs"][0] == (5 * 6 + 3) % 16

    @pytest.mark.parametrize(
        ("arguments", "where"),
        [
            (("5", "3", "0"), "M"),
            (("-5", "3", "16"), "A"),
            (("5", "16", "16"), "B"),
            (("5", "3", "1.5"), "M"),
            (("5", "three", "16"), "B"),
            (("5", "3", "9**9**9"), "M"),
            (("5", "3", "16", "--seed", "16"), "seed"),
            (("5", "3", "16", "--seed", "-1"), "seed"),
        ],
    )
    def test_wrong_parameters(self, arguments: tuple[str, ...], where: str) -> None:
        with pytest.raises(UsageError) as caught:
            run("lcg", *arguments)
        assert caught.value.where == where
        assert caught.value.why
        assert caught.value.next_step

    @pytest.mark.audit
    def test_wrong_parameters_end_with_2(self) -> None:
        ended = subprocess.run(
            [sys.executable, "-m", "repro_audit", "rng", "lcg", "-5", "3", "16"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 2
        assert not ended.stdout
        assert ended.stderr == (
            "repro-audit: A = -5 is out of range\n"
            "  where: A\n"
            "  why:   everything is taken modulo M, so 0 <= A < M = 16\n"
            "  next:  11 means the same: A mod M\n"
        )

    @pytest.mark.audit
    @pytest.mark.parametrize("arguments", [["--help"], ["rng", "lcg", "5", "3", "2**64"]])
    def test_what_needs_no_torch_imports_none(self, arguments: list[str]) -> None:
        assert not heavy_imports(arguments)

    @pytest.mark.audit
    def test_the_check_would_notice(self) -> None:
        assert heavy_imports(["rng", "show"]) == {"numpy", "torch"}


def heavy_imports(arguments: list[str]) -> set[str]:
    """What a command imports, of the libraries that take their time, in an interpreter of its own."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom repro_audit.cli import app\n"
        f"assert CliRunner().invoke(app, {arguments!r}).exit_code == 0\n"
        "print(*{'torch', 'numpy'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return set(ended.stdout.split())


class TestIntegers:
    @given(st.integers(-(2**100), 2**100))
    def test_python_writes_them(self, number: int) -> None:
        for text in (str(number), hex(number), f"({number})", f"{number:_}", f" {number} "):
            assert parse_integer("A", text) == number

    @pytest.mark.parametrize(
        ("text", "number"),
        [("2**61-1", 2**61 - 1), ("7*(3+4)//2%5", 4), ("-2**2", -4), ("0b101", 5), ("+3", 3)],
    )
    def test_expressions(self, text: str, number: int) -> None:
        assert parse_integer("A", text) == number

    @pytest.mark.parametrize(
        "text",
        [
            *("", "x", "1.0", "True", "'1'", "1 2", "2**-1", "1//0", "1/2", "f(1)", "1<2"),
            *("9**9**9**9", "1" + "0" * 1999, "2**2049", "(" * 999, "\0", "1 if 1 else 2", "[1]"),
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="B can not be read"):
            parse_integer("B", text)


class Draws(Dataset[tuple[int, int, int]]):
    """What the generators of a worker draw first, and what PyTorch's was seeded with."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[int, int, int]:
        word = np.random.randint(0, 2**32, dtype=np.uint32)
        return torch.initial_seed(), random.getrandbits(32), int(word)


def of(name: str) -> GeneratorFacts:
    (facts,) = (facts for facts in generators() if facts.name == name)
    return facts


class TestShow:
    def test_positions_follow_the_draws(self) -> None:
        with fork_rng():
            seed_everything(5, cudnn_flags=False)
            assert {of(name).position for name in ("random", "numpy.random", "torch cpu")} == {
                "624 of 624 words of the block used"
            }
            torch.rand(3)
            np.random.randint(0, 2**32, dtype=np.uint32, size=7)
            assert of("torch cpu").position == "3 of 624 words of the block used"
            assert of("numpy.random").position == "7 of 624 words of the block used"
            assert of("torch cpu").seed == 5

    def test_looking_draws_nothing_and_starts_nothing(self) -> None:
        with fork_rng():
            seed_everything(5, cudnn_flags=False)
            first = generators()
            assert generators() == first
            assert not torch.cuda.is_initialized() or torch.cuda.is_available()

    def test_a_device_that_has_not_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: Any) -> None:
            raise AssertionError("CUDA was started")

        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
        monkeypatch.setattr(torch.cuda, "_lazy_init", refuse)
        monkeypatch.setattr(torch.cuda, "get_rng_state", refuse)
        facts = [facts for facts in generators() if facts.name.startswith("torch cuda")]
        assert [one.status for one in facts] == ["not started", "not started"]
        assert {one.seed for one in facts} == {None}
        assert "lazily" in facts[0].position

    def test_a_device_that_has_started(self, monkeypatch: pytest.MonkeyPatch) -> None:
        state = torch.tensor(list(struct.pack("<QQ", 2**63 + 7, 12)), dtype=torch.uint8)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda _index: state)
        facts = of("torch cuda:0")
        assert (facts.status, facts.seed, facts.position) == ("started", 2**63 + 7, "offset 12")
        assert facts.state_bytes == 16

    def test_an_mps_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
        monkeypatch.setattr(
            torch.mps, "_get_default_mps_generator", lambda: torch.Generator().manual_seed(3)
        )
        assert (of("torch mps").seed, of("torch mps").engine) == (3, "Philox4x32-10")

    def test_workers_have_what_is_said(self) -> None:
        loader = DataLoader(Draws(), batch_size=None, num_workers=2)
        (seed0, python0, numpy0), (seed1, python1, numpy1) = (
            tuple(map(int, row)) for row in loader
        )
        assert seed1 == seed0 + 1
        assert [python0, python1] == [random.Random(s).getrandbits(32) for s in (seed0, seed1)]
        assert numpy0 != numpy1
        assert all("base_seed" in of(name).workers for name in ("random", "numpy.random"))

    def test_another_bit_generator_in_numpy(self) -> None:
        with fork_rng():
            np.random.set_bit_generator(np.random.PCG64(1))  # type: ignore[attr-defined]  # not in NumPy's stubs
            assert of("numpy.random").engine == "PCG64"
            assert of("numpy.random").position == "not seen"

    @pytest.mark.audit
    def test_unseeded_they_start_from_the_operating_system(self) -> None:
        draw = "import random, numpy; print(random.getrandbits(64), numpy.random.bytes(8))"
        first, second = (
            subprocess.run([sys.executable, "-c", draw], capture_output=True, check=True).stdout
            for _ in range(2)
        )
        assert not set(first.split()) & set(second.split())
        # Of PyTorch it is enough to see that it isn't the constant that a generator of one's own starts from.
        draw = "import torch; print(torch.initial_seed() - torch.Generator().initial_seed())"
        ended = subprocess.run([sys.executable, "-c", draw], capture_output=True, check=True)
        assert int(ended.stdout) != 0
        for name in ("random", "numpy.random", "torch cpu"):
            assert of(name).at_start.startswith("the operating system's entropy")
