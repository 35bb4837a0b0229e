"""What it costs to write and to compare the detailed events of a million ops.

Each part runs in a process of its own, whose peak memory is read before and after.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.table import Row

if TYPE_CHECKING:
    from typing import Any

OPS = 1_000_000
MEGABYTES_ALLOWED = 100.0
SECONDS_ALLOWED = 3.0

_COMMON = """
import json, re, sys, time
from pathlib import Path
import numpy, xxhash
from repro_audit.analysis.compare import Mismatch
from repro_audit.storage.events import Detail, DetailWriter, Kind, Site
from repro_audit.analysis.pinpoint import Run, pinpoint
from repro_audit.storage.trace import Phase

def peak():
    # Not `ru_maxrss`, which a process has from the one that started it.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

directory, ops = Path(sys.argv[1]), int(sys.argv[2])
"""

_WRITE = (
    _COMMON
    + """
def write(name, inserted, differing):
    writer = DetailWriter(directory / name)
    names = [writer.intern(f"aten::op{number}") for number in range(40)]
    sites = [writer.intern(Site("/home/me/train.py", n, "forward").text()) for n in range(60)]
    modules = [writer.intern(f"encoder.layers.{number}") for number in range(12)]
    empty = writer.intern("")
    digest = xxhash.xxh3_128_digest
    value = digest(b"start")
    for number in range(ops):
        before = value
        value = digest(before + number.to_bytes(4, "little"))
        if number == differing:
            value = digest(value)
        if number == inserted:
            writer.add(0, number // 1000, 2, names[0], sites[0], modules[0], empty, before, before)
        ids = names[number % 40], sites[number % 60], modules[number % 12], empty
        writer.add(0, number // 1000, 2, *ids, before, value)
    writer.close()

baseline, started = peak(), time.perf_counter()
write("plain", -1, -1)
seconds = time.perf_counter() - started
grown = peak() - baseline
write("late", -1, ops - 10_000)
write("inserted", ops // 2, -1)
print(json.dumps({"seconds": seconds, "megabytes": grown}))
"""
)

_COMPARE = (
    _COMMON
    + """
first = Mismatch(
    step=(ops - 1) // 1000,
    phase=Phase.FORWARD,
    name="loss",
    occurrence=0,
    kind="value",
    detail="",
    meta_a="",
    meta_b="",
)
baseline, started = peak(), time.perf_counter()
runs = [Run(main=Detail.open(directory / name)) for name in ("plain", sys.argv[3])]
cause = pinpoint(*runs, first)
seconds = time.perf_counter() - started
print(json.dumps({
    "seconds": seconds,
    "megabytes": peak() - baseline,
    "kind": cause.kind,
    "row": cause.place.either.index,
}))
"""
)


def measure() -> list[Row]:
    """Rows for memory and time; a wrong answer is an error.

    Raises:
        RuntimeError: the comparison did not find what was planted.
    """
    with tempfile.TemporaryDirectory() as directory:
        wrote = _measured(_WRITE, directory)
        late = _measured(_COMPARE, directory, "late")
        inserted = _measured(_COMPARE, directory, "inserted")
    found = (late["kind"], late["row"]), (inserted["kind"], inserted["row"])
    if found != (("op", OPS - 10_000), ("order", OPS // 2)):
        message = f"found {found}"
        raise RuntimeError(message)
    rows = [_memory("writing a million ops", wrote)]
    for what, result in (("late difference", late), ("op inserted", inserted)):
        rows += [
            _memory(f"comparing a million ops, {what}", result),
            Row(
                what=f"comparing a million ops, {what} ({result['seconds']:.2g} s)",
                against="1 s",
                ratio=result["seconds"],
                allowed=SECONDS_ALLOWED,
            ),
        ]
    return rows


def _memory(what: str, result: dict[str, Any]) -> Row:
    return Row(
        what=f"{what} (+{result['megabytes']:.0f} MB)",
        against=f"{MEGABYTES_ALLOWED:.0f} MB more",
        ratio=result["megabytes"] / MEGABYTES_ALLOWED,
        allowed=1.0,
    )


def _measured(code: str, directory: str, *more: str) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, directory, str(OPS), *more],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result
