"""Which generator moved, at which line, and whether it drew or was seeded."""

from __future__ import annotations

import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from repro_audit.probe.clock import Clock
from repro_audit.probe.detail.rng_log import RngLog
from repro_audit.probe.digest import generators
from repro_audit.probe.digest.generators import Position
from repro_audit.storage.events import NOTHING, DetailWriter, Kind
from tests.detailing import Seen, traced

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HEAD = """
import copy, random
from functools import partial
from random import random as draw_one, seed as seed_python
import numpy as np
import torch
from torch import manual_seed
"""


def draws(directory: Path, body: str) -> list[tuple[str, str, int]]:
    """Of a body whose first line is line 1."""
    source = f"{HEAD.strip()}\ndef run():\n"
    source += "".join(f"    {line}\n" for line in body.strip().splitlines())
    return [(name, meta, line - 7) for name, meta, line in traced(directory, source).draws()]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("x = draw_one()", [("python", "draw", 1)]),
        ("x = [1, 2, 3]\nrandom.shuffle(x)", [("python", "draw", 2)]),
        (
            "x = random.gauss(0, 1)\nx = random.gauss(0, 1)",
            [("python", "draw", 1), ("python", "draw", 2)],
        ),
        ("seed_python(3)", [("python", "seed", 1)]),
        (
            "x = random.getstate()\ny = draw_one()\nrandom.setstate(x)",
            [("python", "draw", 2), ("python", "seed", 3)],
        ),
        ("x = np.random.rand(3)", [("numpy", "draw", 1)]),
        ("x = np.random.permutation(100_000)", [("numpy", "draw", 1)]),
        ("np.random.seed(3)", [("numpy", "seed", 1)]),
        ("x = torch.rand(3)", [("torch", "draw", 1)]),
        ("x = torch.empty(3)\nx.uniform_()", [("torch", "draw", 2)]),
        ("x = torch.randn(1)\nx = torch.randn(1)", [("torch", "draw", 1), ("torch", "draw", 2)]),
        ("manual_seed(3)", [("torch", "seed", 1)]),
        ("l = torch.nn.Linear(2, 2)", [("torch", "draw", 1)]),
        (
            "with torch.random.fork_rng():\n    x = torch.rand(1)\ny = 1",
            [("torch", "draw", 2), ("torch", "seed", 1)],
        ),
        ("x = torch.relu(torch.ones(2))", []),
        (
            "g = np.random.default_rng(0)\nx = g.standard_normal()",
            [("g", "made", 1), ("g", "draw", 2)],
        ),
        (
            "g = torch.Generator()\nx = torch.rand(1, generator=g)\ng.manual_seed(1)",
            [("g", "made", 1), ("g", "draw", 2), ("g", "seed", 3)],
        ),
        (
            "g = np.random.RandomState(0)\nx = g.rand()\ng.seed(1)",
            [("g", "made", 1), ("g", "draw", 2), ("g", "seed", 3)],
        ),
        (
            "g = random.Random(0)\nh = g.random\nx = h()",
            [("g", "made", 1), ("g", "draw", 3)],
        ),
        (
            "g = np.random.Generator(np.random.Philox(0))\nx = g.random()",
            [("g", "made", 1), ("g", "draw", 2)],
        ),
        (
            "f = partial(random.Random(0).gauss, 0, 1)\nx = f()",
            [("f.func.__self__", "made", 1), ("f.func.__self__", "draw", 2)],
        ),
        (
            "g = [np.random.default_rng(i) for i in range(2)]\nx = g[1].random()",
            [("g.0", "made", 1), ("g.1", "made", 1), ("g.1", "draw", 2)],
        ),
        ("x = random.SystemRandom().random()", []),
        ("x = np.random.mtrand._rand\ny = x.rand()", [("numpy", "draw", 2)]),
    ],
)
def test_each_way_to_draw(tmp_path: Path, body: str, expected: list[tuple[str, str, int]]) -> None:
    for library in (random, np.random):
        library.seed(0)
    torch.manual_seed(0)
    assert draws(tmp_path, body) == expected


def test_generators_that_objects_and_modules_hold(tmp_path: Path) -> None:
    source = """
    import random
    import numpy as np
    RNG = np.random.default_rng(0)
    class Inner:
        def __init__(self):
            self.rng = random.Random(0)
    class Data:
        def __init__(self):
            self.transform = Inner()
            self.rng = np.random.default_rng(1)
        def get(self):
            a = self.rng.random()
            b = self.transform.rng.random()
            return a + b + RNG.random()
    data = Data()
    def run():
        return data.get()
    """
    draws = [row for row in traced(tmp_path, source).draws() if row[1] == "draw"]
    assert draws == [
        ("program.data.rng", "draw", 12),
        ("program.data.transform.rng", "draw", 13),
        ("program.RNG", "draw", 14),
    ]


def test_the_draw_comes_before_its_line_and_between_the_states(tmp_path: Path) -> None:
    seen = traced(tmp_path, "import random\ndef run():\n    x = random.random()\n    y = 1\n")
    before = [event.kind for event in seen.events if event.site and event.site.line == 3]
    assert before[:2] == [Kind.DRAW, Kind.LINE]
    draw = seen.of(Kind.DRAW)[0]
    assert draw.after == generators.python_digest(generators.AMBIENT_PYTHON)
    assert draw.before != draw.after


def test_a_generator_of_the_programs_own_begins_from_nothing(tmp_path: Path) -> None:
    seen = traced(tmp_path, "import random\ndef run():\n    g = random.Random(0)\n    g.random()\n")
    made, drew = seen.of(Kind.DRAW)
    assert made.before == NOTHING
    assert made.after == drew.before == generators.digest_of(random.Random(0))


def ledger(directory: Path) -> tuple[RngLog, DetailWriter]:
    writer = DetailWriter(directory)
    assert writer.intern("") == 0  # the site that stands for no line
    return RngLog(writer=writer, clock=Clock()), writer


def test_dropped_generators_are_let_go(tmp_path: Path) -> None:
    book, writer = ledger(tmp_path)
    kept = np.random.default_rng(0)
    book.look(kept, "kept", 0)
    for seed in range(20):
        book.look(np.random.default_rng(seed), "rng", 0)
        book.look(random.Random(seed), "rng", 0)
    assert len(book._own) <= 3
    assert sys.getrefcount(kept) == 3
    writer.close()


def test_a_generator_beyond_those_compared_at_each_line(tmp_path: Path) -> None:
    book, writer = ledger(tmp_path)
    many = [random.Random(number) for number in range(20)]
    for number, each in enumerate(many):
        book.look(each, f"g{number}", 0)
    many[0].random()
    book.poll(0)
    book.look(many[0], "g0", 0)
    writer.close()
    assert [row[:2] for row in Seen(tmp_path).draws()][20:] == [("g0", "draw")]


OF_EACH_KIND: list[Callable[[int], Any]] = [
    random.Random,
    np.random.default_rng,
    np.random.RandomState,
    lambda seed: np.random.Generator(np.random.MT19937(seed)),
    lambda seed: np.random.Generator(np.random.SFC64(seed)),
    lambda seed: np.random.Generator(np.random.Philox(seed)),
    lambda seed: np.random.Generator(np.random.PCG64DXSM(seed)),
    lambda seed: torch.Generator().manual_seed(seed),
]


def draw(generator: Any) -> None:
    if isinstance(generator, torch.Generator):
        torch.randint(9, (1,), generator=generator)
    else:
        name = "integers" if isinstance(generator, np.random.Generator) else "randint"
        getattr(generator, name)(0, 9)


@pytest.mark.parametrize("make", OF_EACH_KIND)
def test_tokens_change_with_the_state_alone(make: Callable[[int], Any]) -> None:
    generator = make(0)
    token = generators.token(generator)
    seen = [token(generator)]
    for _ in range(700):  # past a twist
        assert token(generator) == seen[-1]
        draw(generator)
        assert token(generator) != seen[-1]
        seen.append(token(generator))


@pytest.mark.parametrize("make", OF_EACH_KIND)
def test_telling_draws_from_seeds(make: Callable[[int], Any]) -> None:
    generator = make(0)
    start = Position.of(generator)
    for _ in range(3):
        draw(generator)
    later = Position.of(generator)
    assert later.follows(start) in {True, None}
    assert Position.of(make(5)).follows(later) in {False, None}


def test_twists_of_every_twister() -> None:
    """The words of Python's, NumPy's and torch's go on alike."""
    for make in (random.Random, np.random.RandomState, lambda s: torch.Generator().manual_seed(s)):
        generator = make(0)
        start = Position.of(generator)
        for _ in range(2000):
            draw(generator)
        assert Position.of(generator).follows(start)
        assert Position.of(make(1)).follows(start) is None


def test_memory_is_laid_out_as_expected() -> None:
    """Where it is not, all of this still holds, only slower."""
    assert generators._TORCH_OFFSET
    assert generators._PCG_AS_EXPECTED


def test_without_reading_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TORCH_OFFSET", "_PCG_AS_EXPECTED", "_PYTHON_AS_EXPECTED", "_NUMPY_AS_EXPECTED"):
        monkeypatch.setattr(generators, name, False)
    monkeypatch.setattr(generators, "_numpy_bits_seen", [None, None])
    body = "x = draw_one()\nx = np.random.rand()\nx = torch.rand(1)\nx = torch.relu(x)"
    assert draws(tmp_path, body) == [
        ("python", "draw", 1),
        ("numpy", "draw", 2),
        ("torch", "draw", 3),
    ]
