"""Which lines of a program ran, with what, and which of them parted two runs."""

from __future__ import annotations

import random
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from repro_audit.probe.digest import limited as bounded
from repro_audit.storage.events import Event, Kind, Line
from tests.detailing import Seen, first_cause, line_of, load, traced, tracing

if TYPE_CHECKING:
    from pathlib import Path


def rows(seen: Seen, name: str = "") -> list[Event]:
    """The rows of the program under test, without those of this file."""
    return [
        event
        for event in seen.of(Kind.LINE)
        if event.name == name and event.site is not None and "program" in event.site.file
    ]


def own(seen: Seen) -> list[int]:
    return [line_of(event) for event in rows(seen)]


def meta_of(seen: Seen, line: int) -> Line:
    return [Line.read(event.meta) for event in rows(seen) if line_of(event) == line][-1]


# Which lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("x = 1\nif x:\n    y = 2\nelse:\n    y = 3\n", [1, 2, 3]),
        ("x = 0\nif x:\n    y = 2\nelse:\n    y = 3\n", [1, 2, 5]),
        ("def f(a):\n    return a\nx = f(1)\n", [1, 2, 3]),
        ("f = lambda a: a\nx = f(1)\n", [1, 1, 2]),
        ("class C:\n    x = 1\n    y = 2\n", [1, 2, 3, 1]),
        ("for i in range(2):\n    x = i\n", [1, 2, 1, 2, 1]),
        ("def g():\n    yield 1\n    x = 2\nfor i in g():\n    y = i\n", [1, 2, 4, 5, 2, 3, 4]),
        ("try:\n    raise ValueError\nexcept ValueError:\n    x = 1\n", [1, 2, 3, 4]),
        ("import json\nx = json.dumps([1])\n", [1, 2]),
    ],
)
def test_lines_in_the_order_in_which_they_finish(
    tmp_path: Path, source: str, lines: list[int]
) -> None:
    assert own(traced(tmp_path, source)) == lines


def test_comprehension(tmp_path: Path) -> None:
    seen = traced(tmp_path, "def f(i):\n    return i\nx = [\n    f(i)\n    for i in range(2)\n]\n")
    assert own(seen).count(2) == 2
    assert own(seen)[-1] == 3


def test_only_the_program(tmp_path: Path) -> None:
    seen = traced(tmp_path, "import json\nx = json.dumps([1])\n")
    files = {event.site.file for event in seen.of(Kind.LINE) if event.site}
    assert not any("json" in file for file in files)


def test_frames_that_are_running_are_watched_from_their_next_line(tmp_path: Path) -> None:
    source = """
    def outer(begin):
        inner(begin)
        x = 1
        return x

    def inner(begin):
        begin()
        y = 2
    """
    program = load(tmp_path, source)
    context = tracing(tmp_path / "detail")
    program["outer"](context.__enter__)
    context.__exit__(None, None, None)
    assert own(Seen(tmp_path / "detail"))[:3] == [8, 3, 4]


# What they name


def test_names_and_their_values(tmp_path: Path) -> None:
    source = """
    import torch
    class Part:
        scale = 2
        def __init__(self):
            self.weight = torch.ones(2)
        @property
        def never(self):
            raise AssertionError
        def apply(self, x):
            y = self.weight * x + self.scale
            return y
    def run():
        part = Part()
        z = part.apply(3)
        w = part.weight
    """
    seen = traced(tmp_path, source)
    assert meta_of(seen, 10).names == ("self.weight", "x", "self.scale", "y")
    assert meta_of(seen, 15).names == ("part.weight", "w")


def test_no_property_and_no_method_is_called(tmp_path: Path) -> None:
    source = """
    calls = []
    class Watchful:
        @property
        def __class__(self):
            calls.append("__class__")
            return int
        def __getattr__(self, name):
            calls.append(name)
            raise AttributeError(name)
        def __eq__(self, other):
            calls.append("__eq__")
            return True
        __hash__ = None
        def __len__(self):
            calls.append("__len__")
            return 3
        def __iter__(self):
            calls.append("__iter__")
            return iter(())
        def __repr__(self):
            calls.append("__repr__")
            return ""
        @property
        def named(self):
            calls.append("named")
            return 1
    class Items(list):
        __iter__ = __getitem__ = __len__ = Watchful.__len__
    class Keys(dict):
        items = __iter__ = __len__ = Watchful.__len__
    def run():
        w = Watchful()
        i, k = Items((1, 2)), Keys(a=w)
        deep = [w, {"k": (w, i, k)}]
        w2 = w
        f = lambda: w.named
        return deep
    """
    program = load(tmp_path, source)
    with tracing(tmp_path / "detail"):
        program["run"]()
    assert program["calls"] == []


def test_a_tensor_changed_in_place(tmp_path: Path) -> None:
    source = "import torch\nt = torch.zeros(3)\nt.add_(1)\nt.data[0] = 5\nlen(t)\n"
    changed = {
        line_of(event): event.before != event.after for event in rows(traced(tmp_path, source))
    }
    assert (changed[3], changed[4], changed[5]) == (True, True, False)


def test_what_is_returned_and_yielded(tmp_path: Path) -> None:
    source = "def f():\n    return 7\ndef g():\n    yield 8\nf()\nlist(g())\n"
    returns = rows(traced(tmp_path, source), "return")
    assert [line_of(event) for event in returns] == [2, 4, 4]
    assert [event.after for event in returns] == [bounded.digest(value) for value in (7, 8, None)]


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("with nothing():\n        x = a\n        return x", 6),
        ("with nothing(), nothing():\n        return a", 5),
        ("with nothing(\n    ) as x:\n        return a", 6),
        ("with nothing():\n        with nothing():\n            return a", 6),
        ("for i in range(2):\n        with nothing():\n            x = i\n    return x", 7),
        ("with nothing():\n        if a:\n            return a\n    return 0", 6),
        ("with nothing():\n        x = a\n    x = x + 1\n    return x", 7),
    ],
)
def test_a_return_out_of_a_with_is_where_it_says_return(
    tmp_path: Path, body: str, line: int
) -> None:
    """Python leaves the block at the line that entered it."""
    source = (
        f"import contextlib\nnothing = contextlib.nullcontext\ndef f(a):\n    {body}\nx = f(1)\n"
    )
    (returned,) = rows(traced(tmp_path, source), "return")
    assert line_of(returned) == line


def test_an_exit_is_where_the_block_was_entered(tmp_path: Path) -> None:
    seen = traced(
        tmp_path,
        """
        import contextlib, random
        @contextlib.contextmanager
        def moving():
            yield
            random.random()
        def f():
            with moving():
                return 1
        x = f()
        """,
    )
    assert 7 in own(seen)[own(seen).index(8) :]


@pytest.mark.parametrize(
    ("line", "reads"),
    [
        ("x = time.time()", ("clock",)),
        ("x = now()", ("clock",)),
        ("x = datetime.datetime.now()", ("clock",)),
        ("x = os.urandom(1)", ("entropy",)),
        ("x = uuid.uuid4()", ("entropy",)),
        ("x = os.listdir('.')", ("listing",)),
        ("x = list(Path('.').iterdir())", ()),
        ("x = list(here.iterdir())", ("listing",)),
        ("x = os.environ.get('HOME')", ("environment",)),
        ("x = os.getcwd()", ("environment",)),
        ("x = id(os)", ("address",)),
        ("x = list({'a', 'b'})", ("set order",)),
        ("x = [v for v in some]", ("set order",)),
        ("x = 1 in some", ()),
        ("x = sorted([2, 1])", ()),
    ],
)
def test_what_else_a_line_reads(tmp_path: Path, line: str, reads: tuple[str, ...]) -> None:
    head = """
    import datetime, os, time, uuid
    from pathlib import Path
    from time import time as now
    here = Path(".")
    some = {"a"}
    """
    source = "\n".join(part.strip() for part in head.strip().splitlines()) + f"\n{line}\n"
    assert meta_of(traced(tmp_path, source), 6).reads == reads


# Where two runs part

CAUSES = [
    ("x = 1.0\ny = x + random.random()\nz = y * 2\n", 2),
    ("t = torch.zeros(4)\nt[0] = 1\nt += outside()\nu = t.sum()\n", 3),
    ("def f(x):\n    return x * random.random()\ny = [f(v) for v in (1, 2)]\n", 2),
    # Its values have no names before it is complete; the ledger says which of its lines drew.
    ("x = [\n    v * random.random()\n    for v in (1, 2)\n]\n", 1),
    ("if random.random() > 0.5:\n    y = 1\nz = random.random()\n", 3),
    ("x = 3\nn = list(outside() for _ in [1])\n", 2),
    (
        "class D:\n    def __init__(self):\n        self.k = outside()\nd = D()\ne = d.k\n",
        3,
    ),
    ("def g():\n    for i in range(2):\n        yield outside()\nfor v in g():\n    w = v\n", 3),
]


@pytest.mark.parametrize(("source", "line"), CAUSES)
def test_the_line_where_two_runs_part(tmp_path: Path, source: str, line: int) -> None:
    """The difference comes from a generator, or from a function that is none of the program's own."""
    runs = []
    for run in (1, 2):
        body = "".join(f"    {text}\n" for text in source.splitlines())
        program = load(tmp_path, f"def run():\n{body}")
        random.seed(run + 2)  # both draw less than a half first
        program |= {"random": random, "torch": torch, "outside": partial(float, run)}
        with tracing(tmp_path / f"detail{run}"):
            program["run"]()
        seen = Seen(tmp_path / f"detail{run}")
        runs.append(rows(seen) + rows(seen, "return"))
        runs[-1].sort(key=lambda event: event.index)
    cause = next(
        one
        for one, two in zip(*runs, strict=False)
        if one.before == two.before and one.after != two.after
    )
    assert line_of(cause) == line + 1


def test_two_runs_write_the_same(tmp_path: Path) -> None:
    source = """
    import random, torch
    class Thing:
        def __init__(self): self.rng = random.Random(3)
    class Other: pass
    def run():
        things = [Thing(), Other(), object(), lambda: 1]
        names = {"a", "b", 3}
        x = [t.rng.random() for t in things[:1]]
        y = torch.rand(3)
        for name in sorted(map(str, names)):
            z = (name, things)
        return things
    """
    runs = []
    for run in ("one", "two"):
        torch.manual_seed(0)
        directory = tmp_path / run
        directory.mkdir()
        waste = [object() for _ in range(1000 * len(run))]
        program = load(directory, source)
        with tracing(directory / "detail"):
            program["run"]()
        del waste
        runs.append(Seen(directory / "detail").words("program"))
    assert runs[0] == runs[1]


def test_two_runs_that_differ_do_not(tmp_path: Path) -> None:
    source = "def run():\n    x = given\n"
    ones, twos = (traced(tmp_path / str(given), source, given=given) for given in (1, 2))
    assert ones.words() != twos.words()
    assert first_cause(ones, ones) is None


# Nothing changes


def test_results_and_generators_are_as_without(tmp_path: Path) -> None:
    source = """
    import random
    import numpy as np
    import torch
    def run():
        rng = np.random.default_rng(0)
        x = torch.rand(3) + random.gauss(0, 1)
        y = np.random.rand(2) + rng.standard_normal(2)
        z = torch.nn.Linear(3, 2)(x)
        z.sum().backward()
        return x, y, z, torch.rand(1), random.random(), np.random.randn()
    """
    results = []
    program = load(tmp_path, source)
    for traces in (False, True):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        if traces:
            with tracing(tmp_path / "detail"):
                results.append(program["run"]())
        else:
            results.append(program["run"]())
    assert bounded.digest(list(results[0])) == bounded.digest(list(results[1]))


def test_exceptions_pass_and_leave_rows_as_far_as_they_came(tmp_path: Path) -> None:
    program = load(
        tmp_path, "def f():\n    x = 1\n    raise KeyError(x)\ndef run():\n    f()\n    y = 1\n"
    )
    with tracing(tmp_path / "detail"), pytest.raises(KeyError) as raised:
        program["run"]()
    assert [entry.lineno for entry in raised.traceback][-2:] == [4, 2]
    assert own(Seen(tmp_path / "detail")) == [2, 3, 5]


def test_an_earlier_trace_function_is_there_again(tmp_path: Path) -> None:
    def earlier(*_: object) -> None:
        return None

    before = sys.gettrace()
    sys.settrace(earlier)
    try:
        with tracing(tmp_path / "detail"):
            assert sys.gettrace() != earlier
        assert sys.gettrace() is earlier
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("budget", [{"most_events": 50}, {"most_seconds": 0.0}])
def test_the_budget_ends_it(tmp_path: Path, budget: dict[str, Any]) -> None:
    program = load(tmp_path, "def run():\n    for i in range(100):\n        x = i\n    return x\n")
    before = sys.gettrace()
    with tracing(tmp_path / "detail", **budget) as lines:
        assert program["run"]() == 99
        assert "stopped" in lines.truncated
        assert sys.gettrace() is before
    assert len(own(Seen(tmp_path / "detail"))) <= 50


def test_a_defect_of_ours_is_no_error_of_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = load(tmp_path, "def run():\n    x = 1\n    return x\n")

    def fail(_value: object) -> bytes:
        raise LookupError

    with tracing(tmp_path / "detail") as lines:
        monkeypatch.setattr("repro_audit.probe.detail.lines.digest", fail)
        assert program["run"]() == 1
        assert "LookupError" in lines.truncated


def test_recursion_to_the_limit(tmp_path: Path) -> None:
    source = """
    def f(n):
        return f(n + 1)
    def run():
        try:
            f(0)
        except RecursionError:
            return 1
    """
    program = load(tmp_path, source)
    with tracing(tmp_path / "detail") as lines:
        assert program["run"]() == 1
        assert lines.truncated == ""


def test_compiled_regions_are_left_alone(tmp_path: Path) -> None:
    source = """
    import torch
    def f(x):
        y = x * 2
        return y + 1
    compiled = torch.compile(f, backend="eager")
    def run():
        a = compiled(torch.ones(2))
        b = compiled(torch.ones(2))
        return a, b
    """
    program = load(tmp_path, source)
    with tracing(tmp_path / "detail") as lines:
        a, b = program["run"]()
        assert lines.truncated == ""
    assert a.tolist() == b.tolist() == [3, 3]
    assert own(Seen(tmp_path / "detail")) == [7, 8, 9]


# Values


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (torch.tensor([1, 2]), torch.tensor([2, 1])),
        (torch.zeros(2), -torch.zeros(2)),
        (torch.zeros(5_000_000), torch.cat((torch.zeros(4_999_999), torch.ones(1)))),
        (np.zeros(3), np.zeros((3, 1))),
        (np.zeros(5_000_000), np.concatenate((np.ones(1), np.zeros(4_999_999)))),
        ([1, [2, {"a": 3}]], [1, [2, {"a": 4}]]),
        ([1, 2], (1, 2)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (list(range(1000)), [*range(999), 5]),
        (list(range(1000)), list(range(1001))),
        ("a" * 2_000_000, "a" * 1_999_999 + "b"),
        (1, 1.0),
        (1, True),
        (b"a", "a"),
        (random.Random(0), random.Random(1)),
        (torch.float32, torch.float64),
    ],
)
def test_values_that_count(value: object, other: object) -> None:
    assert bounded.digest(value) == bounded.digest(value)
    assert bounded.digest(value) != bounded.digest(other)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ({"a", "b", "c", 3}, {3, "c", "b", "a"}),
        (object(), object()),
        (lambda: 1, lambda: 2),
        ([object()], [object()]),
        (torch.ones(4, 4).t(), torch.ones(4, 4)),
    ],
)
def test_values_that_do_not(value: object, other: object) -> None:
    assert bounded.digest(value) == bounded.digest(other)


def test_many_large_arrays_are_not_all_read() -> None:
    one, other = ([np.zeros(2_000_000)] * 4 + [np.full(2_000_000, last)] for last in (0, 1))
    assert bounded.digest(one) == bounded.digest(other)
    assert bounded.digest(one[1:]) != bounded.digest(other[1:])


def test_a_structure_that_holds_itself() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    assert bounded.digest(loop) == bounded.digest(loop)


def test_reading_meta() -> None:
    line = Line(names=("x", "self.y"), reads=("clock",), sets=("x",))
    assert Line.read(line.text()) == line
    assert Line.read("") == Line(names=(), reads=(), sets=())
