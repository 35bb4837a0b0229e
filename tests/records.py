"""Records made by hand, whole and damaged, for tests."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import torch

from repro_audit.probe.digest.capture import ValueWriter
from repro_audit.storage import record
from repro_audit.storage.events import DETAIL, MAIN, DetailWriter, Kind, Line, Site
from repro_audit.storage.trace import Phase, Role, Trace, TraceWriter

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

PROGRAM = "import torch\n\nx = torch.ones(4)\ny = x * 2\n"
_NAMES = ("batch.0", "output", "grad.weight", "param.weight")
_PHASES = (Phase.DATA, Phase.FORWARD, Phase.BACKWARD, Phase.OPTIMIZER)


def make(
    path: Path,
    *,
    values: Sequence[float] = (1.0, 2.0, 3.0, 4.0),
    program: str = PROGRAM,
    sample: int = 256,
    fingerprint: Mapping[str, str] | None = None,
    shifted: int = 0,
) -> Path:
    """Save a record of a program of two steps, in which the output and all that follows has these values.

    Args:
        path: of the file.
        values: of the output.
        program: the text of the file that it ran.
        sample: of each value, how many elements it keeps.
        fingerprint: what it ran on.
        shifted: how many lines further down everything stands in the program.
    """
    trial = path.with_name(f"{path.name}-trial")
    trace, saved = (
        TraceWriter(trial / record.TRACE),
        ValueWriter(trial / record.VALUES, sample=sample),
    )
    detail = DetailWriter(trial / DETAIL / MAIN)
    nowhere = detail.intern("")
    form = trace.intern(f"float32[{len(values)}]")
    for step in range(2):
        for name, phase in zip(_NAMES, _PHASES, strict=True):
            tensor = torch.tensor(values) if phase >= Phase.FORWARD else torch.zeros(len(values))
            digest = tensor.numpy().tobytes()[:16].ljust(16, b"\0")
            trace.add(step, phase, Role.OUTCOME, trace.intern(name), form, digest)
            saved.add((step, int(phase), name, 0), tensor)
            site = detail.intern(
                Site(str(trial / "train.py"), 4 + shifted, "<module>", first=1).text()
            )
            line = detail.intern(Line(names=("x", "y"), reads=(), sets=("y",)).text())
            before = bytes(16) if phase <= Phase.FORWARD else digest
            op = detail.intern("aten::mul")
            detail.add(Kind.OP, step, phase, op, site, nowhere, form, before, digest)
            line_name = detail.intern("")
            detail.add(Kind.LINE, step, phase, line_name, site, nowhere, line, before, digest)
            detail.add(
                Kind.MARK,
                step,
                phase,
                detail.intern(name),
                nowhere,
                nowhere,
                nowhere,
                bytes(16),
                bytes(16),
            )
    trace.close()
    detail.close()
    header = record.Header(
        version=record.VERSION,
        tool="0",
        spec="train.py",
        mode="script",
        argv=(),
        seed=0,
        steps=2,
        until_epoch=None,
        isolation="overlay",
        instant=1_700_000_000,
        losses=(float(sum(values)), 1.0),
        digest=Trace.open(trial / record.TRACE).outcome_digest(),
        fingerprint={"Python": "3.11.9", "threads": "2", **(fingerprint or {})},
        files={"train.py": program},
    )
    record.write(path, header, trial=trial, detailed=trial, root=trial)
    return path


def members(path: Path) -> dict[str, bytes]:
    """What a record holds, by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(held: Mapping[str, bytes]) -> bytes:
    """An archive that holds it, whatever that is."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in held.items():
            archive.writestr(name, data)
    return file.getvalue()


def damaged(whole: bytes, held: Mapping[str, bytes], chance: random.Random) -> bytes:
    """A record after one accident: to the file, or to a member of it, whose checksum is right again then."""
    if chance.random() < 0.3:
        return _bytes_damaged(whole, chance)
    name = chance.choice(sorted(held))
    change: Callable[[bytes, random.Random], bytes] = (
        _json_damaged if name.endswith((".json", ".jsonl")) else _bytes_damaged
    )
    changed = {**held, name: change(held[name], chance)}
    if chance.random() < 0.1:
        del changed[name]
    return packed(changed)


def _bytes_damaged(data: bytes, chance: random.Random) -> bytes:
    """Bits turned, or a stretch cut out, doubled or filled with another byte."""
    found = bytearray(data)
    start = chance.randrange(len(found) + 1)
    size = chance.choice((1, 2, 4, 8, 64))
    match chance.randrange(5):
        case 0:
            for _ in range(size):
                found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
        case 1:
            del found[start:]
        case 2:
            del found[start : start + size]
        case 3:
            found[start:start] = found[start : start + size]
        case _:
            found[start : start + size] = bytes([chance.choice((0, 255))]) * size
    return bytes(found)


STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1 << 31, 1 << 62, 10**400, 0.5, float("nan"), float("inf")),
    *("", "../x", "/etc/passwd", "\0", "\ud800", "x" * 10_000, [], {}, [[[]]], {"a": 1}),
)
"""What may stand where something else should."""


def _json_damaged(data: bytes, chance: random.Random) -> bytes:
    """One value somewhere replaced by a strange one, or a key renamed."""
    lines = data.split(b"\n")
    number = chance.randrange(len(lines))
    try:
        found = json.loads(lines[number])
    except ValueError:
        return _bytes_damaged(data, chance)
    lines[number] = json.dumps(_replaced(found, chance)).encode()
    return b"\n".join(lines)


def _replaced(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(sorted(value))
        if chance.random() < 0.1:
            return {name: each for name, each in value.items() if name != key}
        return {**value, key: _replaced(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        return [*value[:at], _replaced(value[at], chance), *value[at + 1 :]]
    return chance.choice(STRANGE)
