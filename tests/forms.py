"""Every documented form of the arguments of each public function that the audit replaces, and what it refuses."""

# mypy: ignore-errors
# Some of it is what no types allow, and has to fail alike.

from __future__ import annotations

import builtins
import concurrent.futures
import datetime as dt
import io
import os
import pwd
import queue
import random
import resource
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch._dynamo  # what the first step of an optimizer imports, and then replaces functions itself
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, distributed, sampler

if TYPE_CHECKING:
    from collections.abc import Callable

UTC = dt.timezone.utc
HERE = Path(__file__).parent


class _Zone(dt.tzinfo):
    def utcoffset(self, _when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1)

    def dst(self, _when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


class _Day(dt.date):
    pass


class _Moment(dt.datetime):
    pass


def _thread(**words: Any) -> None:
    thread = threading.Thread(target=lambda *_, **__: None, **words)
    thread.start()
    thread.join()


def _ended_thread() -> threading.Thread:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    return thread


def _filled() -> queue.Queue[int]:
    rows: queue.Queue[int] = queue.Queue()
    rows.put(1)
    return rows


def _selected(*args: Any, **words: Any) -> Any:
    with selectors.DefaultSelector() as selector:
        return selector.select(*args, **words)


class _Runs(threading.Thread):
    def run(self) -> None:
        pass


def _run_subclass() -> None:
    thread = _Runs()
    thread.start()
    thread.join()


def _start_twice() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    thread.start()


def _timer() -> None:
    timer = threading.Timer(0, int)
    timer.start()
    timer.join()


def _completed(make: Callable[[list[Any]], Any], **words: Any) -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(int, number) for number in "31"]
        return [one.result() for one in concurrent.futures.as_completed(make(futures), **words)]


def _completed_by_keyword() -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(int, "3")]
        return [one.result() for one in concurrent.futures.as_completed(fs=futures, timeout=9)]


def _submitted(*args: Any, **words: Any) -> Any:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(*args, **words).result()


def _takes(*args: Any, **words: Any) -> tuple[Any, ...]:
    return (*args, *words.values())


def _mapped() -> list[Any]:
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return list(pool.map(pow, [2, 3], [2, 2], timeout=9, chunksize=2))


def _folder() -> Path:
    folder = Path(tempfile.mkdtemp())
    for name in "ab":
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def _with_descriptor(function: Callable[[int], Any]) -> Any:
    descriptor = os.open(_folder(), os.O_RDONLY)
    try:
        return function(descriptor)
    finally:
        os.close(descriptor)


def _read(function: Callable[..., Any], *args: Any, **words: Any) -> int:
    with function(*args, **words) as file:
        return len(file.read(4))


def _opened(*args: Any, **words: Any) -> int:
    descriptor = os.open(*args, **words)
    try:
        return len(os.read(descriptor, 4))
    finally:
        os.close(descriptor)


def _forms_of_open(function: Callable[..., Any]) -> dict[str, Callable[[], Any]]:
    return {
        "text": lambda: _read(function, __file__),
        "path": lambda: _read(function, Path(__file__)),
        "bytes": lambda: _read(function, os.fsencode(__file__), "rb"),
        "by keyword": lambda: _read(
            function,
            file=__file__,
            mode="r",
            buffering=-1,
            encoding="utf-8",
            errors=None,
            newline=None,
            closefd=True,
            opener=None,
        ),
        "unbuffered": lambda: _read(function, "/dev/urandom", "rb", 0),
        "device": lambda: _read(function, "/dev/urandom", mode="rb"),
        "opener": lambda: _read(
            function, __file__, opener=lambda path, flags: os.open(path, flags)
        ),
        "descriptor": lambda: _with_descriptor(lambda number: function(number, closefd=False)),
        "missing": lambda: function("no such file"),
        "no such mode": lambda: function(__file__, "zz"),
        "number as mode": lambda: function(__file__, 1),
        "nothing": lambda: function(),
    }


def _scan(*args: Any, **words: Any) -> list[str]:
    with os.scandir(*args, **words) as entries:
        first = next(entries)
        found = [str(entry.name) for entry in (first, *entries)]
    entries.close()
    return found


def _moved(function: str, **words: Any) -> None:
    folder = _folder()
    getattr(os, function)(folder / "a", folder / "c", **words)


def _moved_within(function: str) -> None:
    descriptor = os.open(_folder(), os.O_RDONLY)
    try:
        getattr(os, function)("a", "c", src_dir_fd=descriptor, dst_dir_fd=descriptor)
    finally:
        os.close(descriptor)


def _moved_as(function: str, kind: Callable[[Path], Any]) -> None:
    folder = _folder()
    getattr(os, function)(src=kind(folder / "a"), dst=kind(folder / "c"))


def _moves(function: str) -> dict[str, Callable[[], Any]]:
    return {
        "paths": lambda: _moved(function),
        "text by keyword": lambda: _moved_as(function, str),
        "bytes by keyword": lambda: _moved_as(function, os.fsencode),
        "directories by descriptor": lambda: _moved_within(function),
        "None for descriptors": lambda: _moved(function, src_dir_fd=None, dst_dir_fd=None),
        "what is not there": lambda: getattr(os, function)("/nowhere/a", "/nowhere/b"),
        "a number": lambda: getattr(os, function)(3, "b"),
    }


def _rnn(name: str) -> dict[str, Callable[[], Any]]:
    def module(**words: Any) -> Any:
        return getattr(nn, name)(3, 4, num_layers=2, dropout=0.5, **words)

    def state() -> Any:
        zeros = torch.zeros(2, 5, 4)
        return (zeros, zeros) if name == "LSTM" else zeros

    def packed() -> Any:
        return nn.utils.rnn.pack_sequence([torch.zeros(6, 3), torch.zeros(2, 3)])

    x = torch.zeros(6, 5, 3)
    return {
        "input": lambda: module()(x),
        "input by keyword": lambda: module()(input=x),
        "with a state": lambda: module()(x, state()),
        "hx by keyword": lambda: module()(x, hx=state()),
        "None for a state": lambda: module()(x, None),
        "forward itself": lambda: module().forward(x),
        "forward of the class": lambda: getattr(nn, name).forward(module(), x),
        "packed": lambda: module()(packed()),
        "batch first": lambda: module(batch_first=True, bidirectional=True)(x),
        "without a batch": lambda: module()(x[:, 0]),
        "wrong width": lambda: module()(torch.zeros(6, 5, 2)),
    }


def _zero_dimensional() -> Any:
    return np.empty(())


def _plain_class() -> type:
    class Plain:
        pass

    return Plain


def _keyword_class() -> type:
    class Base:
        def __init_subclass__(cls, *, tag: str = "") -> None:
            cls.tag = tag

    class Tagged(Base, tag="x"):
        pass

    return Tagged


def _meta_class() -> type:
    class Meta(type):
        @classmethod
        def __prepare__(cls, _name: str, _bases: Any, **_: Any) -> dict[str, Any]:
            return {}

        def __new__(cls, name: str, bases: Any, body: Any, **_: Any) -> Any:
            return super().__new__(cls, name, bases, body)

        def __init__(cls, name: str, bases: Any, body: Any, **_: Any) -> None:
            super().__init__(name, bases, body)

    class Made(metaclass=Meta, more=1):
        pass

    return Made


def _module() -> Any:
    return nn.Linear(2, 1)


class _Keywords(nn.Module):
    def forward(self, *xs: Any, scale: Any = 1.0, **more: Any) -> Any:
        return sum(xs) * scale, more


def _loss() -> Any:
    return (_module()(torch.ones(3, 2)) ** 2).sum()


def _graph() -> tuple[Any, Any]:
    x = torch.ones(3, requires_grad=True)
    return x, x * 2


def _backward(*args: Any, many: bool = False, **words: Any) -> None:
    _x, y = _graph()
    torch.autograd.backward([y, y] if many else y, *args, **words)


def _inputs(kind: Callable[[Any], Any]) -> None:
    x, y = _graph()
    torch.autograd.backward(y.sum(), inputs=kind(x))


def _edge() -> None:
    _x, y = _graph()
    torch.autograd.backward(torch.autograd.graph.get_gradient_edge(y), torch.ones(3))


def _method_backward(**words: Any) -> None:
    _x, y = _graph()
    y.sum().backward(**words)


def _grad(*, wrap: Callable[[Any], Any] = lambda x: x, **words: Any) -> Any:
    x, y = _graph()
    return torch.autograd.grad(wrap(y.sum()), wrap(x), **words)


def _keyword_grad() -> Any:
    x, y = _graph()
    return torch.autograd.grad(outputs=y, inputs=x, grad_outputs=torch.ones(3), create_graph=True)


def _jacobian() -> Any:
    x, y = _graph()
    return torch.autograd.grad(y, x, torch.eye(3), is_grads_batched=True)


def _unused() -> Any:
    x, y = _graph()
    return torch.autograd.grad(
        y.sum(), (x, torch.ones(1, requires_grad=True)), allow_unused=True, materialize_grads=True
    )


def _data() -> TensorDataset:
    return TensorDataset(torch.arange(8.0)[:, None])


def _step() -> Any:
    model = _module()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 2)).sum().backward()
    return optimizer.step()


def _numpy_seed(seed: Any) -> Callable[[], Any]:
    return lambda: np.random.seed(seed)


def _python_seed(*args: Any, **words: Any) -> Callable[[], Any]:
    return lambda: random.seed(*args, **words)


def _own_seed(*args: Any, **words: Any) -> Callable[[], Any]:
    return lambda: random.Random().seed(*args, **words)


class _Random(random.Random):
    def seed(self, a: Any = None, version: int = 2) -> None:
        super().seed(a, version)


_PYTHON_SEEDS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "None": ((None,), {}),
    "int": ((3,), {}),
    "negative": ((-3,), {}),
    "large": ((1 << 80,), {}),
    "bool": ((True,), {}),
    "float": ((0.5,), {}),
    "text": (("seed",), {}),
    "bytes": ((b"seed",), {}),
    "bytearray": ((bytearray(b"seed"),), {}),
    "NumPy float": ((np.float64(0.5),), {}),
    "NumPy integer": ((np.int64(3),), {}),  # refused from Python 3.11 on
    "version 1": (("seed", 1), {}),
    "by keyword": ((), {"a": 3}),
    "None by keyword": ((), {"a": None}),
    "version by keyword": (("seed",), {"version": 1}),
    "a list": (([1, 2],), {}),
    "a tuple": (((1, 2),), {}),
    "too many": ((1, 2, 3), {}),
}

_NUMBERS = (
    "os.getpid",
    "os.getppid",
    "os.getcwd",
    "os.getcwdb",
    "os.cpu_count",
    "os.getuid",
    "os.geteuid",
    "threading.get_ident",
    "threading.get_native_id",
    "uuid.getnode",
)
_OF_PROCESS = (
    "os.getpgid",
    "os.getsid",
    "os.sched_getaffinity",
    "os.sched_getparam",
    "os.sched_getscheduler",
)


def _named(name: str) -> Any:
    module, _, function = name.rpartition(".")
    return getattr({"os": os, "threading": threading, "uuid": uuid}[module], function)


def _asks(name: str) -> dict[str, Callable[[], Any]]:
    return {"nothing": lambda: _named(name)(), "too many": lambda: _named(name)(1)}


def _of_process(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "itself": lambda: _named(name)(0),
        "by id": lambda: _named(name)(os.getpid()),
        "nobody": lambda: _named(name)(1 << 21),
        "text": lambda: _named(name)("1"),
    }


def _status(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "text": lambda: getattr(os, name)(str(HERE)),
        "bytes": lambda: getattr(os, name)(os.fsencode(HERE)),
        "path": lambda: getattr(os, name)(HERE),
        "by keyword": lambda: getattr(os, name)(path=HERE, dir_fd=None),
        "what is not there": lambda: getattr(os, name)("/nowhere"),
        "a number": lambda: getattr(os, name)(3.5),
    }


def _entry() -> Any:
    with os.scandir(_folder()) as entries:
        return next(entries)


def _child() -> int:
    child = os.fork()
    if not child:
        os._exit(0)
    return child


_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_WHEN = (2026, 1, 2, 3, 4, 5, 4, 2, -1)


def _clock(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "nothing": lambda: getattr(time, name)(),
        "too many": lambda: getattr(time, name)(1),
    }


def _calendar(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "nothing": lambda: getattr(time, name)(),
        "None": lambda: getattr(time, name)(None),
        "int": lambda: getattr(time, name)(86_400),
        "float": lambda: getattr(time, name)(0.5),
        "NumPy": lambda: getattr(time, name)(np.float64(0.5)),
        "NumPy integer": lambda: getattr(time, name)(np.int64(5)),
        "text": lambda: getattr(time, name)("now"),
    }


def _of_clock(name: str) -> dict[str, Callable[[], Any]]:
    return {
        "wall": lambda: getattr(time, name)(time.CLOCK_REALTIME),
        "monotonic": lambda: getattr(time, name)(time.CLOCK_MONOTONIC),
        "of the process": lambda: getattr(time, name)(time.CLOCK_PROCESS_CPUTIME_ID),
        "bool": lambda: getattr(time, name)(False),
        "no such clock": lambda: getattr(time, name)(12_345),
        "text": lambda: getattr(time, name)("CLOCK_REALTIME"),
        "nothing": lambda: getattr(time, name)(),
    }


def _received(act: Callable[[socket.socket], Any]) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abc")
        return act(ours)


def _said(*args: Any, **words: Any) -> Any:
    with subprocess.Popen(*args, **words) as process:
        return process.stdout and process.stdout.read()


def _communicated(*args: Any, **words: Any) -> Any:
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            return process.communicate(*args, **words)
        finally:
            process.kill()


FORMS: dict[str, dict[str, Callable[[], Any]]] = {
    # clock
    **{
        f"time.{name}{ending}": _clock(f"{name}{ending}")
        for name in _CLOCKS
        for ending in ("", "_ns")
    },
    **{
        f"time.clock_gettime{ending}": _of_clock(f"clock_gettime{ending}") for ending in ("", "_ns")
    },
    **{f"time.{name}": _calendar(name) for name in ("localtime", "gmtime", "ctime")},
    "time.sleep": {
        "int": lambda: time.sleep(0),
        "float": lambda: time.sleep(0.001),
        "bool": lambda: time.sleep(False),
        "NumPy float": lambda: time.sleep(np.float32(0.001)),
        "NumPy integer": lambda: time.sleep(np.int8(0)),
        "small NumPy integer": lambda: time.sleep(np.uint8(1) * 0),
        "negative": lambda: time.sleep(-1),
        "text": lambda: time.sleep("1"),
        "nothing": lambda: time.sleep(),
    },
    "time.asctime": {
        "nothing": lambda: time.asctime(),
        "tuple": lambda: time.asctime(_WHEN),
        "struct": lambda: time.asctime(time.gmtime(0)),
        "None": lambda: time.asctime(None),
    },
    "time.strftime": {
        "format": lambda: time.strftime("%Y"),
        "empty format": lambda: time.strftime(""),
        "tuple": lambda: time.strftime("%Y", _WHEN),
        "struct": lambda: time.strftime("%Y", time.gmtime(0)),
        "None": lambda: time.strftime("%Y", None),
        "nothing": lambda: time.strftime(),
        "a number": lambda: time.strftime(3),
    },
    "datetime.date.today": {
        "of the class": lambda: dt.date.today(),
        "of a subclass": lambda: _Day.today(),
        "of datetime": lambda: dt.datetime.today(),
        "of an object": lambda: dt.date(2026, 1, 1).today(),
        "too many": lambda: dt.date.today(1),
    },
    "datetime.datetime.now": {
        "nothing": lambda: dt.datetime.now(),
        "None": lambda: dt.datetime.now(None),
        "zone": lambda: dt.datetime.now(UTC),
        "zone by keyword": lambda: dt.datetime.now(tz=UTC),
        "a zone of one's own": lambda: dt.datetime.now(_Zone()),
        "of a subclass": lambda: _Moment.now(UTC),
        "of an object": lambda: dt.datetime(2026, 1, 1).now(),
        "text": lambda: dt.datetime.now("UTC"),
        "too many": lambda: dt.datetime.now(UTC, UTC),
    },
    "datetime.datetime.utcnow": {
        "of the class": lambda: dt.datetime.utcnow(),
        "of a subclass": lambda: _Moment.utcnow(),
        "too many": lambda: dt.datetime.utcnow(1),
    },
    # os-entropy, python-rng
    "os.urandom": {
        "int": lambda: os.urandom(8),
        "zero": lambda: os.urandom(0),
        "bool": lambda: os.urandom(True),
        "NumPy integer": lambda: os.urandom(np.int64(8)),
        "float": lambda: os.urandom(8.0),
        "negative": lambda: os.urandom(-1),
        "by keyword": lambda: os.urandom(size=8),
        "nothing": lambda: os.urandom(),
    },
    "builtins.open": _forms_of_open(lambda *args, **words: open(*args, **words)),  # noqa: SIM115
    "io.open": _forms_of_open(lambda *args, **words: io.open(*args, **words)),  # noqa: SIM115, UP020
    "os.open": {
        "text": lambda: _opened(__file__, os.O_RDONLY),
        "path": lambda: _opened(Path(__file__), os.O_RDONLY | os.O_CLOEXEC, 0o600),
        "bytes": lambda: _opened(os.fsencode(__file__), os.O_RDONLY),
        "by keyword": lambda: _opened(path=__file__, flags=os.O_RDONLY, mode=0o600, dir_fd=None),
        "device": lambda: _opened("/dev/urandom", os.O_RDONLY),
        "in a directory": lambda: _with_descriptor(
            lambda folder: os.close(os.open("a", os.O_RDONLY, dir_fd=folder))
        ),
        "missing": lambda: os.open("no such file", os.O_RDONLY),
        "text as flags": lambda: os.open(__file__, "r"),  # type: ignore[arg-type]
        "nothing": lambda: os.open(),  # type: ignore[call-arg]
    },
    "os.getrandom": {
        "int": lambda: os.getrandom(8),
        "flags": lambda: os.getrandom(8, os.GRND_NONBLOCK),
        "by keyword": lambda: os.getrandom(size=8, flags=os.GRND_NONBLOCK | os.GRND_RANDOM),
        "NumPy integer": lambda: os.getrandom(np.int64(8)),
        "no such flags": lambda: os.getrandom(8, 1 << 20),
        "negative": lambda: os.getrandom(-1),
        "text": lambda: os.getrandom("8"),
    },
    "random.seed": {
        name: _python_seed(*args, **words) for name, (args, words) in _PYTHON_SEEDS.items()
    },
    "random.Random.seed": {
        **{name: _own_seed(*args, **words) for name, (args, words) in _PYTHON_SEEDS.items()},
        "constructed": lambda: random.Random(3),
        "constructed without a seed": lambda: random.Random(),
        "constructed with None": lambda: random.Random(None),
        "constructed with text": lambda: random.Random("seed"),
        "constructed by keyword": lambda: random.Random(x=3),
        "a subclass": lambda: _Random(3),
        "a subclass without a seed": lambda: _Random(),
        "of the class": lambda: random.Random.seed(random.Random(), 3),
    },
    "uuid.uuid1": {
        "nothing": lambda: uuid.uuid1(),
        "node": lambda: uuid.uuid1(5),
        "by keyword": lambda: uuid.uuid1(node=5, clock_seq=7),
        "clock alone": lambda: uuid.uuid1(clock_seq=7),
        "None": lambda: uuid.uuid1(None, None),
        "text": lambda: uuid.uuid1("5"),
    },
    "torch.Generator.seed": {
        "of an object": lambda: torch.Generator().seed(),
        "of the global one": lambda: torch.seed(),
        "of the class": lambda: torch.Generator.seed(torch.Generator()),
        "too many": lambda: torch.Generator().seed(1),
    },
    # numpy-rng, torch-rng, uninitialized-memory, nondeterministic-op
    "numpy.random.seed": {
        "nothing": lambda: np.random.seed(),
        "None": _numpy_seed(None),
        "int": _numpy_seed(3),
        "largest": _numpy_seed(2**32 - 1),
        "bool": _numpy_seed(True),
        "NumPy integer": _numpy_seed(np.int64(3)),
        "NumPy unsigned": _numpy_seed(np.uint32(3)),
        "array": _numpy_seed(np.array([3, 4], dtype=np.uint32)),
        "array of one": _numpy_seed(np.array([3])),
        "array of dimension zero": _numpy_seed(np.array(3)),
        "list": _numpy_seed([3, 4]),
        "tuple": _numpy_seed((3, 4)),
        "range": _numpy_seed(range(3)),
        "by keyword": lambda: np.random.seed(seed=3),
        "array by keyword": lambda: np.random.seed(seed=np.arange(4)),
        "None by keyword": lambda: np.random.seed(seed=None),
        "an empty array": _numpy_seed(np.array([], dtype=np.uint32)),
        "negative": _numpy_seed(-1),
        "too large": _numpy_seed(2**32),
        "float": _numpy_seed(0.5),
        "text": _numpy_seed("seed"),
        "a matrix": _numpy_seed(np.ones((2, 2), dtype=np.int64)),
    },
    "numpy.empty": {
        "int": lambda: np.empty(3),
        "NumPy integer": lambda: np.empty(np.int64(3)),
        "tuple": lambda: np.empty((2, 3)),
        "list": lambda: np.empty([2, 3], np.float32),
        "array": lambda: np.empty(np.array([2, 3]), dtype="int8"),
        "dimension zero": _zero_dimensional,
        "nothing in it": lambda: np.empty((0, 3)),
        "order": lambda: np.empty((2, 3), float, "F"),
        "by keyword": lambda: np.empty(shape=(2, 3), dtype=np.complex64, order="F"),
        "like": lambda: np.empty(3, like=np.ones(1)),
        "objects": lambda: np.empty(3, dtype=object)[0],
        "text": lambda: np.empty(3, dtype="U4"),
        "times": lambda: np.empty(3, dtype="datetime64[s]"),
        "fields": lambda: np.empty(3, dtype=[("a", "i4"), ("b", "f8")]),
        "fields with objects": lambda: np.empty(3, dtype=[("a", "i4"), ("b", "O")])[0]["b"],
        "strings of any length": lambda: str(np.empty(3, dtype=np.dtypes.StringDType())[0]),
        "negative": lambda: np.empty(-1),
        "words": lambda: np.empty("three"),
    },
    "numpy.empty_like": {
        "array": lambda: np.empty_like(np.ones(3)),
        "list": lambda: np.empty_like([1.0, 2.0]),
        "number": lambda: np.empty_like(1.0),
        "objects": lambda: np.empty_like(np.array([None, 1]))[0],
        "a matrix": lambda: np.empty_like(np.ma.masked_array([1.0, 2.0], [0, 1])),
        "without the subclass": lambda: np.empty_like(np.ma.masked_array([1.0]), subok=False),
        "by keyword": lambda: np.empty_like(prototype=np.ones((2, 3)), dtype=int, order="C"),
        "shape": lambda: np.empty_like(np.ones(3), shape=(2, 2)),
        "not in order": lambda: np.empty_like(np.ones((3, 4))[::2, ::-1].T),
        "broadcast": lambda: np.empty_like(np.broadcast_to(1.0, (2, 2))),
        "nothing": lambda: np.empty_like(),
    },
    "torch.manual_seed": {
        "int": lambda: torch.manual_seed(3),
        "negative": lambda: torch.manual_seed(-3),
        "largest": lambda: torch.manual_seed(2**64 - 1),
        "by keyword": lambda: torch.manual_seed(seed=3),
        "NumPy integer": lambda: torch.manual_seed(np.int64(3)),
        "NumPy array": lambda: torch.manual_seed(np.array(3)),
        "tensor": lambda: torch.manual_seed(torch.tensor(3)),
        "float": lambda: torch.manual_seed(3.0),
        "text": lambda: torch.manual_seed("3"),
        "too large": lambda: torch.manual_seed(2**64),
        "None": lambda: torch.manual_seed(None),
        "nothing": lambda: torch.manual_seed(),
        "a list": lambda: torch.manual_seed([3]),
    },
    "torch.use_deterministic_algorithms": {
        "on": lambda: torch.use_deterministic_algorithms(True),
        "off": lambda: torch.use_deterministic_algorithms(False),
        "by keyword": lambda: torch.use_deterministic_algorithms(mode=True, warn_only=True),
        "warnings": lambda: torch.use_deterministic_algorithms(True, warn_only=False),
        "warnings by place": lambda: torch.use_deterministic_algorithms(True, True),
        "a number": lambda: torch.use_deterministic_algorithms(1),
        "text": lambda: torch.use_deterministic_algorithms("on"),
        "nothing": lambda: torch.use_deterministic_algorithms(),
    },
    # object-address
    "builtins.__build_class__": {
        "a class": _plain_class,
        "keywords": _keyword_class,
        "a metaclass": _meta_class,
        "called": lambda: builtins.__build_class__(lambda: None, "Named", dict),
        "nothing": lambda: builtins.__build_class__(),
        "no function": lambda: builtins.__build_class__(3, "Named"),
    },
    "builtins.id": {
        "object": lambda: id(object()),
        "number": lambda: id(3),
        "None": lambda: id(None),
        "module": lambda: id(_module()),
        "class": lambda: id(int),
        "nothing": lambda: id(),
        "by keyword": lambda: id(obj=3),
    },
    "torch.Tensor.__hash__": {
        "tensor": lambda: hash(torch.ones(1)),
        "parameter": lambda: hash(nn.Parameter(torch.ones(1))),
        "of the class": lambda: torch.Tensor.__hash__(torch.ones(1)),
        "in a set": lambda: {torch.ones(1), torch.ones(1)},
    },
    "torch.nn.modules.module.Module.__hash__": {
        "module": lambda: hash(_module()),
        "in a dict": lambda: {_module(): 1},
    },
    # thread-timing
    "threading.Thread.start": {
        "target": lambda: _thread(),
        "arguments": lambda: _thread(args=(1,), kwargs={"a": 2}),
        "daemon": lambda: _thread(daemon=True, name="worker"),
        "a subclass": _run_subclass,
        "a timer": _timer,
        "twice": _start_twice,
    },
    "threading.Thread.join": {
        "timeout": lambda: _ended_thread().join(1),
        "by keyword": lambda: _ended_thread().join(timeout=1.5),
        "none": lambda: _ended_thread().join(None),
        "not started": lambda: threading.Thread(target=int).join(),
        "itself": lambda: threading.current_thread().join(),
    },
    "threading.Thread.is_alive": {
        "over": lambda: _ended_thread().is_alive(),
        "not started": lambda: threading.Thread(target=int).is_alive(),
        "too many": lambda: _ended_thread().is_alive(1),
    },
    "threading.Event.is_set": {
        "not": lambda: threading.Event().is_set(),
        "too many": lambda: threading.Event().is_set(1),
    },
    "queue.Queue.get": {
        "something": lambda: _filled().get(),
        "not waiting": lambda: _filled().get(block=False),
        "timeout": lambda: _filled().get(True, 1),
        "nothing there": lambda: queue.Queue().get(timeout=0.01),
        "nothing now": lambda: queue.PriorityQueue().get_nowait(),
        "negative": lambda: queue.Queue().get(timeout=-1),
    },
    "selectors.EpollSelector.select": {
        "timeout": lambda: _selected(0.001),
        "by keyword": lambda: _selected(timeout=0),
        "a string": lambda: _selected("x"),
    },
    "concurrent.futures.as_completed": {
        "list": lambda: _completed(list),
        "tuple": lambda: _completed(tuple),
        "set": lambda: _completed(set),
        "generator": lambda: _completed(iter),
        "keys": lambda: _completed(dict.fromkeys),
        "twice the same": lambda: _completed(lambda futures: futures * 2),
        "timeout": lambda: _completed(list, timeout=9),
        "no timeout": lambda: _completed(list, timeout=None),
        "by keyword": _completed_by_keyword,
        "nothing in it": lambda: _completed(lambda _: []),
        "a number": lambda: _completed(lambda _: 3),
    },
    "concurrent.futures.thread.ThreadPoolExecutor.submit": {
        "function": lambda: _submitted(int),
        "arguments": lambda: _submitted(_takes, 1, b=2),
        "the names of its own": lambda: _submitted(_takes, fn=1, self=2, pool=3, task=4, args=5),
        "a method": lambda: _submitted("a,b".split, ","),
        "map": _mapped,
        "no function": lambda: _submitted(3),
        "nothing": lambda: _submitted(),
    },
    # lstm-dropout
    **{f"torch.nn.modules.rnn.{name}.forward": _rnn(name) for name in ("RNN", "LSTM", "GRU")},
    "torch.nn.modules.rnn.RNNBase.__call__": _rnn("LSTM"),
    # environment
    "os.uname": {
        "nothing": lambda: os.uname(),
        "a field": lambda: os.uname().nodename,
        "unpacked": lambda: [*os.uname()],
        "too many": lambda: os.uname(1),
    },
    "socket.gethostname": {
        "nothing": lambda: socket.gethostname(),
        "too many": lambda: socket.gethostname(1),
    },
    "os.getlogin": {"too many": lambda: os.getlogin(1)},
    # process-identity, environment
    **{name: _asks(name) for name in _NUMBERS},
    **{name: _of_process(name) for name in _OF_PROCESS},
    **{f"os.{name}": _status(name) for name in ("stat", "lstat")},
    "os.fstat": {
        "descriptor": lambda: _with_descriptor(os.fstat),
        "by keyword": lambda: _with_descriptor(lambda it: os.fstat(fd=it)),
        "no descriptor": lambda: os.fstat(9_999),
        "text": lambda: os.fstat("a"),
    },
    "posix.DirEntry.inode": {
        "entry": lambda: _entry().inode(),
        "too many": lambda: _entry().inode(1),
    },
    "posix.DirEntry.stat": {
        "entry": lambda: _entry().stat(),
        "by keyword": lambda: _entry().stat(follow_symlinks=False),
    },
    "os.kill": {
        "itself": lambda: os.kill(os.getpid(), 0),
        "nobody": lambda: os.kill(1 << 21, 0),
        "text": lambda: os.kill("1", 0),
    },
    "os.killpg": {"its group": lambda: os.killpg(os.getpgid(0), 0)},
    "os.waitpid": {
        "any": lambda: os.waitpid(-1, os.WNOHANG),
        "a child": lambda: os.waitpid(_child(), 0),
    },
    "os.wait4": {"a child": lambda: os.wait4(_child(), 0)},
    "os.pidfd_open": {"itself": lambda: os.close(os.pidfd_open(os.getpid()))},
    "os.setpgid": {"as it is": lambda: os.setpgid(0, os.getpgid(0))},
    "os.getpriority": {"itself": lambda: os.getpriority(os.PRIO_PROCESS, 0)},
    "os.setpriority": {"itself": lambda: os.setpriority(os.PRIO_PROCESS, 0, 0)},
    "os.sched_setaffinity": {
        "as it is": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
        "by id": lambda: os.sched_setaffinity(os.getpid(), os.sched_getaffinity(0)),
    },
    "os.sched_setparam": {"as it is": lambda: os.sched_setparam(0, os.sched_getparam(0))},
    "os.sched_setscheduler": {
        "as it is": lambda: os.sched_setscheduler(
            0, os.sched_getscheduler(0), os.sched_getparam(0)
        ),
    },
    "os.getloadavg": {"nothing": lambda: os.getloadavg(), "too many": lambda: os.getloadavg(1)},  # type: ignore[call-arg]
    "os.times": {"nothing": lambda: os.times(), "too many": lambda: os.times(1)},  # type: ignore[call-arg]
    "os.statvfs": {
        "path": lambda: os.statvfs(Path("/")),
        "by keyword": lambda: os.statvfs(path="/"),
        "descriptor": lambda: os.statvfs(0),
        "a field": lambda: os.statvfs("/").f_fsid,
        "supports descriptors": lambda: int(os.statvfs in os.supports_fd),
        "no such file": lambda: os.statvfs("/no/such/file"),
    },
    "os.fstatvfs": {
        "descriptor": lambda: os.fstatvfs(0),
        "by keyword": lambda: os.fstatvfs(fd=0),
        "path": lambda: os.fstatvfs("/"),  # type: ignore[arg-type]
    },
    "resource.getrusage": {
        "itself": lambda: resource.getrusage(resource.RUSAGE_SELF),
        "nothing": lambda: resource.getrusage(),  # type: ignore[call-arg]
    },
    "shutil.disk_usage": {
        "path": lambda: shutil.disk_usage("/"),
        "by keyword": lambda: shutil.disk_usage(path="/"),
    },
    "socket.socket.recv": {
        "size": lambda: _received(lambda end: end.recv(3)),
        "flags": lambda: _received(lambda end: end.recv(3, 0)),
        "no size": lambda: _received(lambda end: end.recv()),
    },
    "socket.socket.recv_into": {
        "buffer": lambda: _received(lambda end: end.recv_into(bytearray(3))),
        "size": lambda: _received(lambda end: end.recv_into(bytearray(3), 2, 0)),
        "by keyword": lambda: _received(lambda end: end.recv_into(buffer=bytearray(3), nbytes=2)),
        "text": lambda: _received(lambda end: end.recv_into("abc")),
    },
    "ssl.SSLSocket.read": {"nothing": lambda: ssl.SSLSocket.read()},  # type: ignore[call-arg]
    "subprocess.Popen.__init__": {
        "text": lambda: _said(["echo", "1"], stdout=subprocess.PIPE, text=True),
        "bytes": lambda: _said("true", -1, None, None, subprocess.PIPE),
        "unbuffered": lambda: _said(["echo", "1"], bufsize=0, stdout=subprocess.PIPE),
        "no output": lambda: _said(["true"]),
        "both": lambda: _said(["true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT),
        "no such program": lambda: _said(["no-such-program"]),
    },
    "subprocess.Popen.communicate": {
        "nothing": lambda: _communicated(),
        "input": lambda: _communicated(b"1"),
        "by keyword": lambda: _communicated(input=b"1", timeout=9),
        "no bytes": lambda: _communicated(1),
    },
    "os.sysconf": {
        "name": lambda: os.sysconf("SC_PHYS_PAGES"),
        "number": lambda: os.sysconf(os.sysconf_names["SC_NPROCESSORS_ONLN"]),
        "no such name": lambda: os.sysconf("SC_NOTHING"),
    },
    "pwd.getpwuid": {
        "own": lambda: pwd.getpwuid(os.getuid()),
        "a field": lambda: pwd.getpwuid(0).pw_name,
        "nobody's": lambda: pwd.getpwuid(987_654),
        "text": lambda: pwd.getpwuid("0"),
        "by keyword": lambda: pwd.getpwuid(uidobj=0),
        "nothing": lambda: pwd.getpwuid(),
    },
    "pwd.getpwnam": {
        "root": lambda: pwd.getpwnam("root").pw_uid,
        "nobody's": lambda: pwd.getpwnam("no such user"),
        "a number": lambda: pwd.getpwnam(0),
        "by keyword": lambda: pwd.getpwnam(name="root"),
    },
    "signal.pthread_kill": {
        "itself": lambda: signal.pthread_kill(threading.get_ident(), 0),
    },
    "torch.amp.grad_scaler.GradScaler.scale": {
        "tensor": lambda: torch.amp.GradScaler("cpu").scale(torch.ones(1)),
        "list": lambda: torch.amp.GradScaler("cpu").scale([torch.ones(1)]),
        "by keyword": lambda: torch.amp.GradScaler("cpu").scale(outputs=torch.ones(1)),
        "off": lambda: torch.amp.GradScaler("cpu", enabled=False).scale(torch.ones(1)),
    },
    # file-order
    "os.listdir": {
        "nothing": lambda: os.listdir(),
        "None": lambda: os.listdir(None),
        "text": lambda: os.listdir(str(HERE)),
        "bytes": lambda: os.listdir(os.fsencode(HERE))[0],
        "path": lambda: os.listdir(HERE),
        "by keyword": lambda: os.listdir(path=HERE),
        "descriptor": lambda: _with_descriptor(os.listdir),
        "walk": lambda: list(os.walk(HERE)),
        "iterdir": lambda: list(HERE.iterdir()),
        "what is not there": lambda: os.listdir("/nowhere"),
        "a number": lambda: os.listdir(3.5),
        "a zero byte": lambda: os.listdir("a\0b"),
    },
    "os.scandir": {
        "nothing": lambda: _scan(),
        "None": lambda: _scan(None),
        "text": lambda: _scan(str(HERE)),
        "bytes": lambda: _scan(os.fsencode(HERE)),
        "path": lambda: _scan(HERE),
        "by keyword": lambda: _scan(path=HERE),
        "descriptor": lambda: _with_descriptor(lambda it: [entry.name for entry in os.scandir(it)]),
        "glob": lambda: list(HERE.glob("**/*.py")),
        "fwalk": lambda: list(os.fwalk(HERE)),
        "what is not there": lambda: _scan("/nowhere"),
        "a number": lambda: _scan(3.5),
    },
    # the overlay
    "os.rename": _moves("rename"),
    "os.replace": _moves("replace"),
    # the probe
    "torch.nn.modules.module.Module.__call__": {
        "input": lambda: _module()(torch.ones(1, 2)),
        "by keyword": lambda: _module()(input=torch.ones(1, 2)),
        "many": lambda: _Keywords()(torch.ones(1), torch.ones(1), scale=2.0),
        "the names of its own": lambda: _Keywords()(module=1, args=2, kwargs=3, call=4)[1],
        "of the class": lambda: nn.Module.__call__(_module(), torch.ones(1, 2)),
        "no such argument": lambda: _module()(torch.ones(1, 2), other=1),
        "nothing": lambda: _module()(),
    },
    "torch.autograd.backward": {
        "loss": lambda: torch.autograd.backward(_loss()),
        "list": lambda: torch.autograd.backward([_loss(), _loss()]),
        "tuple": lambda: torch.autograd.backward((_loss(),)),
        "by keyword": lambda: torch.autograd.backward(tensors=_loss()),
        "a gradient": lambda: _backward(torch.ones(3)),
        "gradients": lambda: _backward((torch.ones(3), None), many=True),
        "gradients by keyword": lambda: _backward(grad_tensors=torch.ones(3), retain_graph=True),
        "an old name": lambda: _backward(grad_variables=torch.ones(3)),
        "second order": lambda: _backward(torch.ones(3), create_graph=True),
        "inputs": lambda: _inputs(lambda x: [x]),
        "an input": lambda: _inputs(lambda x: x),
        "an edge": _edge,
        "of a tensor": lambda: _method_backward(retain_graph=True),
        "inputs of a tensor": lambda: _method_backward(gradient=None, create_graph=False),
        "no gradient": lambda: torch.autograd.backward(torch.ones(1)),
        "no scalar": lambda: _backward(),
        "nothing": lambda: torch.autograd.backward(),
    },
    "torch.autograd.grad": {
        "tensor": lambda: _grad(),
        "lists": lambda: _grad(wrap=lambda x: [x]),
        "tuples": lambda: _grad(wrap=lambda x: (x,), retain_graph=True),
        "by keyword": _keyword_grad,
        "batched": _jacobian,
        "unused": _unused,
        "no gradient": lambda: torch.autograd.grad(torch.ones(1), torch.ones(1)),
    },
    "torch.jit.trace": {
        "module": lambda: torch.jit.trace(_module(), torch.ones(1, 2)),
        "tuple": lambda: torch.jit.trace(_module(), (torch.ones(1, 2),), strict=False),
        "by keyword": lambda: torch.jit.trace(func=torch.relu, example_inputs=torch.ones(2)),
    },
    "torch.jit.trace_module": {
        "forward": lambda: torch.jit.trace_module(_module(), {"forward": torch.ones(1, 2)}),
    },
    "torch.nn.modules.module.Module.__init__": {
        "module": _module,
        "a container": lambda: nn.Sequential(_module(), nn.ReLU()),
        "by keyword": lambda: nn.Linear(in_features=2, out_features=1, bias=False, device="cpu"),
        "too many": lambda: nn.Module(3),
    },
    "torch.optim.optimizer.Optimizer.__init__": {
        "generator": lambda: torch.optim.SGD(_module().parameters(), lr=0.1),
        "list": lambda: torch.optim.Adam(list(_module().parameters())),
        "groups": lambda: torch.optim.SGD([{"params": _module().parameters(), "lr": 0.1}], 1.0),
        "names": lambda: torch.optim.SGD(_module().named_parameters(), lr=0.1),
        "by keyword": lambda: torch.optim.Optimizer(
            params=[nn.Parameter(torch.ones(1))], defaults={}
        ),
        "a step": _step,
        "a tensor": lambda: torch.optim.SGD(torch.ones(1), lr=0.1),
    },
    "torch.utils.data.dataloader.DataLoader.__init__": {
        "dataset": lambda: list(DataLoader(_data())),
        "by place": lambda: list(DataLoader(_data(), 4, True)),
        "by keyword": lambda: list(DataLoader(dataset=_data(), batch_size=None, shuffle=True)),
        "sampler": lambda: list(DataLoader(_data(), sampler=[1, 0])),
        "batches": lambda: list(DataLoader(_data(), batch_sampler=[[1, 0], [2]])),
        "a list": lambda: list(DataLoader([1, 2, 3], batch_size=2)),
        "workers": lambda: list(DataLoader(_data(), num_workers=1)),
        "both": lambda: DataLoader(_data(), sampler=[1], shuffle=True),
    },
    "torch.utils.data.dataloader.DataLoader.__iter__": {
        "iter": lambda: next(iter(DataLoader(_data()))),
        "of the class": lambda: next(DataLoader.__iter__(DataLoader(_data()))),
    },
    "torch.utils.data.sampler.SequentialSampler.__init__": {
        "place": lambda: list(sampler.SequentialSampler(_data())),
        "keyword": lambda: list(sampler.SequentialSampler(data_source=_data())),
    },
    "torch.utils.data.sampler.RandomSampler.__init__": {
        "place": lambda: list(sampler.RandomSampler(_data(), True, 3)),
        "keyword": lambda: list(
            sampler.RandomSampler(_data(), num_samples=3, generator=torch.Generator())
        ),
        "no number": lambda: sampler.RandomSampler(_data(), num_samples=-1),
    },
    "torch.utils.data.sampler.SubsetRandomSampler.__init__": {
        "list": lambda: list(sampler.SubsetRandomSampler([1, 2])),
        "range": lambda: list(sampler.SubsetRandomSampler(indices=range(2), generator=None)),
    },
    "torch.utils.data.sampler.WeightedRandomSampler.__init__": {
        "list": lambda: list(sampler.WeightedRandomSampler([0.5, 0.5], 2)),
        "tensor": lambda: list(
            sampler.WeightedRandomSampler(weights=torch.ones(3), num_samples=2, replacement=False)
        ),
    },
    "torch.utils.data.sampler.BatchSampler.__init__": {
        "sampler": lambda: list(sampler.BatchSampler(sampler.SequentialSampler(_data()), 3, True)),
        "list": lambda: list(sampler.BatchSampler(sampler=[1, 2], batch_size=2, drop_last=False)),
    },
    "torch.utils.data.distributed.DistributedSampler.__init__": {
        "place": lambda: list(distributed.DistributedSampler(_data(), 2, 0)),
        "keyword": lambda: list(
            distributed.DistributedSampler(_data(), num_replicas=2, rank=1, shuffle=False, seed=3)
        ),
        "no group": lambda: distributed.DistributedSampler(_data()),
    },
    "torch.utils.data.distributed.DistributedSampler.__iter__": {
        "iter": lambda: list(iter(distributed.DistributedSampler(_data(), 2, 1))),
        "method": lambda: list(
            distributed.DistributedSampler.__iter__(
                distributed.DistributedSampler(_data(), num_replicas=2, rank=0, shuffle=False)
            )
        ),
        "nothing": lambda: distributed.DistributedSampler.__iter__(),
    },
}
"""By dotted name, then by what is given: a call. One that fails must fail alike."""
