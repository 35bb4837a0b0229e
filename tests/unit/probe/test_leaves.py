"""Nested values are walked down to their leaves, and equal digests mean equal values."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import os
import subprocess
import sys
from collections import OrderedDict, UserDict, deque, namedtuple
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from repro_audit.probe.digest import leaves as leaves_module
from repro_audit.probe.digest.tensors import describe, digest, leaves, opaque_forms

if TYPE_CHECKING:
    from collections.abc import Callable


Point = namedtuple("Point", ["x", "y"])  # noqa: PYI024


class Color(enum.Enum):
    """For keys and values."""

    RED = 1


@dataclasses.dataclass
class Batch:
    """A batch of the user's own."""

    image: object
    label: object = 3


class Opaque:
    """Something that nothing is known of."""


class Holder:
    """An object with tensors among its attributes, and one that must not be called."""

    __slots__ = ("_secret", "empty", "name", "stacked")

    def __init__(self, tensor: torch.Tensor) -> None:
        self._secret = tensor
        self.stacked = {"deep": [tensor]}
        self.name = "ignored"

    @property
    def computed(self) -> torch.Tensor:
        message = "a probe must not compute"
        raise AssertionError(message)


T = torch.ones(2)


NAMED: list[tuple[object, list[str]]] = [
    (T, [""]),
    (3, [""]),
    (None, [""]),
    ([T, T], ["0", "1"]),
    ({"a": T, "b": {"c": [T, None]}}, ["a", "b.c.0", "b.c.1"]),
    ((T, ["x", "y"]), ["0", "1"]),
    (["x", 1, None], [""]),
    (Point(x=T, y=1), ["x", "y"]),
    (Batch(image=T), ["image", "label"]),
    (OrderedDict(logits=T, loss=T), ["logits", "loss"]),
    (UserDict(a=T), ["a"]),
    (deque([T]), ["0"]),
    ({1: T, (2, "a"): T, Color.RED: T, None: T}, ["1", "2,a", "RED", "None"]),
    ({Opaque(): T}, [f"{__name__}.Opaque"]),
    (torch.return_types.max((T, T)), ["0", "1"]),
    ([[], {}, T], ["0", "1", "2"]),
    ((), [""]),
    (Opaque(), [""]),
    (Holder(T), ["_secret", "stacked.deep.0"]),
    (SimpleNamespace(x=T, y="text", f=print), ["x"]),
    (torch.nn.Linear(1, 1), [""]),
    ({"set": {1, 2}, "generator": iter("ab")}, ["set", "generator"]),
]


@pytest.mark.parametrize(("value", "names"), NAMED)
def test_leaves_are_named_by_the_way_to_them(value: object, names: list[str]) -> None:
    assert [name for name, _ in leaves(value)] == names
    for _, leaf in leaves(value):
        assert len(digest(leaf)) == 16
        assert " at 0x" not in describe(leaf)
    assert digest(value) == digest(value)


def test_leaves_are_the_very_objects() -> None:
    (_, first), (_, second) = leaves({"a": T, "b": [T]})
    assert first is T
    assert second is T


def test_packed_sequences() -> None:
    packed = torch.nn.utils.rnn.pack_sequence([T])
    assert [name for name, _ in leaves(packed)][:2] == ["data", "batch_sizes"]


def test_a_generator_is_not_used_up() -> None:
    generator = iter([1, 2])
    list(leaves({"x": generator}))
    digest(generator)
    assert next(generator) == 1


class Failing(UserDict[str, object]):
    """A mapping that can not be read."""

    def items(self) -> Any:
        message = "broken"
        raise ValueError(message)


def test_containers_that_fail_are_leaves() -> None:
    failing = Failing(a=T)
    assert [name for name, _ in leaves([failing])] == ["0"]
    assert len(digest(failing)) == 16


def cyclic() -> list[object]:
    value: list[object] = [T]
    value.append({"self": value})
    return value


def deep() -> object:
    value: object = T
    for _ in range(2000):
        value = [value]
    return value


def shared() -> object:
    value: object = [T]
    for _ in range(36):
        value = [value, value]
    return value


def wide() -> object:
    return [[T] for _ in range(5_000)]


def bushy() -> object:
    return [[[T] * 40 for _ in range(40)] for _ in range(3)]


@pytest.mark.parametrize("make", [cyclic, deep, shared, wide, bushy])
def test_cycles_and_huge_structures_end_and_count_whole(make: Callable[[], object]) -> None:
    value = make()
    rows = [digest(leaf) for _, leaf in leaves(value)]
    assert len(rows) <= leaves_module.MAX_LEAVES + leaves_module.MAX_ITEMS
    assert digest(value) == digest(make())


def test_the_last_of_many_counts() -> None:
    def rows(last: float) -> list[bytes]:
        value = bushy()
        value[-1][-1] = [torch.tensor([last])]  # type: ignore[index]
        return [digest(leaf) for _, leaf in leaves(value)]

    assert rows(1) == rows(1) != rows(2)


def test_structure_counts_in_a_digest() -> None:
    a, b = torch.ones(1), torch.zeros(1)
    values = [
        *(
            [a, b],
            [b, a],
            (a, b),
            [[a], b],
            [[a, b]],
            [[a], [b]],
            {"x": a, "y": b},
            {"y": a, "x": b},
        ),
        *({"x": {"k": a}, "y": {"k": b}}, {"x": {"k": a}, "z": {"k": b}}, [a, [b]], [a, b, []]),
    ]
    values += [
        SimpleNamespace(a={"p": a, "q": SimpleNamespace(x=a)}, y=b),
        SimpleNamespace(a={"p": a, "q": SimpleNamespace(x=a, y=b)}),
    ]
    assert len({digest(value) for value in values}) == len(values)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()), max_size=3)
    | st.binary(max_size=3)
)


def meaning(value: object) -> object:
    """What must be equal for a digest and a form to be equal."""
    if isinstance(value, (list, tuple)):
        return (type(value), [meaning(each) for each in value])
    if isinstance(value, float):
        return (float, np.float64(value).tobytes())
    if isinstance(value, complex):
        return (complex, np.complex128(value).tobytes())
    return (type(value), value)


@given(data=st.data())
def test_plain_values_are_equal_only_when_they_are(data: st.DataObject) -> None:
    values = (
        scalars | st.lists(scalars, max_size=3) | st.tuples(scalars, st.lists(scalars, max_size=2))
    )
    a, b = data.draw(values), data.draw(values)
    same = (describe(a), digest(a)) == (describe(b), digest(b))
    assert same == (meaning(a) == meaning(b))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (1, 1.0),
        (1, True),
        (1, "1"),
        ("1", b"1"),
        (0.0, -0.0),
        (["ab", "c"], ["a", "bc"]),
        (2**70, 2**70 + 1),
        (np.float32(1), np.float32(2)),
        (np.float32(1), 1.0),
        (np.str_("a"), np.str_("b")),
        (dt.date(2020, 1, 1), dt.date(2020, 1, 2)),
        (dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), dt.datetime(2020, 1, 1)),  # noqa: DTZ001
        (PurePosixPath("a"), PurePosixPath("b")),
        (range(3), range(4)),
        (slice(1, 2), slice(1, 3)),
        ({1, 2}, {1, 3}),
        (frozenset({1}), {1}),
        (torch.float32, torch.float64),
        (torch.device("cpu"), torch.device("meta")),
        (torch.Size([1]), torch.Size([2])),
        (bytearray(b"a"), bytearray(b"b")),
        (int, float),
        (math.sin, math.cos),
        (np.array([1, 2]), np.array([2, 1])),
        (np.array([0.0]), np.array([-0.0])),
        (np.array([1, 2]), np.array([[1, 2]])),
        (np.array(["a"]), np.array(["b"])),
        (np.array([1, None]), np.array([2, None])),
        (np.array([T, None], dtype=object), np.array([T * 2, None], dtype=object)),
        (np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]")),
        (np.ma.array([1, 2], mask=[False, True]), np.ma.array([1, 2], mask=[True, False])),
        (np.zeros(2, "f4,i4"), np.ones(2, "f4,i4")),
        (np.array([1], ">i4"), np.array([1], "<i4")),
        ({frozenset({1}): 1}, {frozenset({1}): 2}),
        (Color.RED, 1),
    ],
)
def test_other_values_are_other_observations(a: object, b: object) -> None:
    assert (describe(a), digest(a)) != (describe(b), digest(b))
    assert (describe(a), digest(a)) == (describe(a), digest(a))


def test_arrays_have_the_digest_of_their_elements() -> None:
    array = np.arange(12.0).reshape(3, 4)
    for each in (array, array.T, array[::-1, ::2], np.asfortranarray(array), array[:0]):
        assert digest(each) == xxhash.xxh3_128_digest(np.ascontiguousarray(each).tobytes())
        assert describe(each).startswith("ndarray float64[")


HASHES = """
import torch
from repro_audit.probe.digest.tensors import describe, digest, leaves

class Opaque: pass

value = {
    "set": {"a", "b", "c", "d", "e"},
    "sets": [frozenset({f"{n}{m}" for m in range(9)}) for n in range(3)],
    "object": Opaque(),
    "key": {Opaque(): 1},
    "function": lambda: 0,
}
print([(name, describe(leaf), digest(leaf).hex()) for name, leaf in leaves(value)], digest(value).hex())
print(sorted(str(hash(x)) for x in "abc"))
"""


@pytest.mark.audit
def test_neither_hash_seed_nor_addresses_show() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", HASHES],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ("1", "2")
    ]
    assert outputs[0][0] == outputs[1][0]
    assert outputs[0][1] != outputs[1][1]


def test_unknown_objects_are_listed_as_such() -> None:
    digest(Opaque())
    assert f"{__name__}.Opaque" in opaque_forms()
    before = opaque_forms()
    digest([1, {"a": (2, "b")}, T, set(), {}])
    assert opaque_forms() == before
