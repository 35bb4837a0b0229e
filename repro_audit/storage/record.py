"""A record: one pinned run and what it ran on, in one file that may come from a stranger.

The file is a ZIP archive: `record.json`, beside it what a trial leaves on disk (`trace/`, `values/` and
`detail/PROCESS/`), under the very names that it has there. Paths of the program are relative to its tree. Nothing in
it is unpickled, no name in it is taken for a path to write to, and every size is bounded before it is believed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NoReturn

from repro_audit.errors import InternalError, UsageError
from repro_audit.storage import columns, events, trace, values
from repro_audit.storage.border import dumps, loads
from repro_audit.storage.columns import Columns
from repro_audit.storage.events import DETAIL, Detail, Kind, Line, Site
from repro_audit.storage.number_formats import format_of
from repro_audit.storage.trace import Phase, Trace

VERSION = 1
HEADER, TRACE, VALUES = "record.json", "trace", "values"
SUFFIX = ".repro"

_MAGIC, _END, _LARGE = b"PK", b"PK\5\6", b"PK\6\7"
"""How an archive begins, how the end of its directory does, and what stands before that in one of many gigabytes."""
_TAIL_BYTES, _MOST_DIRECTORY_BYTES = (1 << 16) + 64, 1 << 20
_MOST_RATIO, _SLACK_BYTES = 20, 1 << 24
"""What a file unpacks to: so many times its size at most, and so much more. Digests can not be compressed."""
_MOST_HEADER_BYTES, _MOST_TEXT_BYTES, _MOST_LINES = 1 << 23, 1 << 24, 1 << 18
"""Of what is read as text, which takes more memory than it has bytes."""
_MOST_FIELDS, _MOST_MEMBERS, _MOST_DIMENSIONS = 20_000, 4_096, 64
_MOST_STEPS = 1 << 32
_BLOCK_BYTES = 1 << 20
_PROCESS = r"(rank\d{1,6}-)?(main|worker-\d{1,6}-\d{1,6}-\d{1,6})"
_AGAIN = "make it again: repro-audit record TARGET -o run.repro"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a record says of itself."""

    version: int
    """Of the format."""
    tool: str
    """The version of repro-audit that wrote it."""
    spec: str
    """The target as it was given. Likewise the next two."""
    mode: str
    argv: tuple[str, ...]
    seed: int
    steps: int
    """As asked for."""
    until_epoch: int | None
    isolation: str
    """Where the run's writes went."""
    instant: int
    """What the pinned clock shows, in seconds since 1970."""
    losses: tuple[float, ...]
    digest: str
    """Of all outcomes in order."""
    fingerprint: dict[str, str] = field(default_factory=dict)
    """What the run ran on, as `storage.fingerprint` has it."""
    files: dict[str, str] = field(default_factory=dict)
    """The text of the program's own files, by their paths below its tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record that was read and checked, unpacked into a directory like a trial's."""

    name: str
    """As the user calls the file."""
    header: Header
    directory: Path

    @property
    def trace(self) -> Trace:
        """Its observations."""
        return Trace.open(self.directory / TRACE)


def write(path: Path, header: Header, *, trial: Path, detailed: Path, root: Path) -> None:
    """Save a record, whole or not at all.

    Args:
        path: of the file.
        header: what it says of itself.
        trial: the directory of the trial whose trace and values it holds.
        detailed: the directory of the same trial with every op and line watched.
        root: of the program's tree.
    """
    part = path.with_name(f".{path.name[:100]}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            archive.writestr(HEADER, dumps(header))
            for name in _members(TRACE, trace.COLUMNS):
                archive.write(trial / name, name)
            for name in (f"{VALUES}/{values.INDEX}", f"{VALUES}/{values.DATA}"):
                if (trial / name).exists():
                    archive.write(trial / name, name)
            for process, directory in events.processes(detailed / DETAIL, rank=None).items():
                place = f"{DETAIL}/{process}"
                for name in _members(place, events.COLUMNS)[1:]:
                    archive.write(detailed / name, name)
                texts = _homeless(Detail.open(directory), root)
                lines = "".join(json.dumps(text) + "\n" for text in texts)
                archive.writestr(f"{place}/{columns.STRINGS}", lines)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _members(place: str, described: Columns) -> list[str]:
    return [f"{place}/{columns.STRINGS}", *(f"{place}/{name}" for name, _ in described)]


def _homeless(detail: Detail, root: Path) -> list[str]:
    """The texts of events, with sites below the tree as they are called from there."""
    sites = set(detail.site.tolist())
    return [
        _moved(text, lambda file: _below(file, root)) if number in sites else text
        for number, text in enumerate(detail.strings)
    ]


def _below(file: str, root: Path) -> str:
    return str(Path(file).relative_to(root)) if Path(file).is_relative_to(root) else file


def _moved(text: str, name: Callable[[str], str]) -> str:
    """A site with its file under another name."""
    site = Site.read(text)
    return text if site is None else replace(site, file=name(site.file)).text()


# Reading


def read(path: Path, directory: Path) -> Record:
    """Unpack a record into a directory that is made, and see that all of it means something.

    Raises:
        UsageError: the file can not be read, is no record, or one that no version of this tool wrote.
    """
    if not path.is_file():
        raise UsageError(
            "there is no such record" if not path.exists() else "a record is a file",
            where=str(path),
            next_step="save one: repro-audit record TARGET -o run.repro",
        )
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                _refuse(path, "it does not begin like a record")
            _check_directory(file)
        with zipfile.ZipFile(path) as archive:
            members = _checked_members(archive, path)
            header = _header(archive, members, path)
            for name in members:
                _unpack(archive, members[name], directory / name)
        record = Record(name=str(path), header=header, directory=directory)
        _check_trace(record)
        _check_values(directory / VALUES)
        for name in events.processes(directory / DETAIL):
            _check_detail(directory / DETAIL / name)
    except OSError as error:
        if error.errno == errno.EINVAL:  # a place before the file's beginning
            _refuse(path, "it points to places that it does not have")
        raise UsageError(
            "the record can not be read",
            where=str(path),
            why=error.strerror or str(error),
            next_step="see that the path is right, and that there is room for temporary files",
        ) from error
    except (InternalError, *_DAMAGED) as error:
        why = (error.why or error.what) if isinstance(error, InternalError) else str(error)
        _refuse(path, why or type(error).__name__)
    return record


_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError),
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError),
)
"""What `zipfile`, `json` and NumPy raise at data that is not what it should be."""


def _refuse(path: Path, why: str) -> NoReturn:
    raise UsageError(
        "this file is no whole record",
        where=str(path),
        why=f"{why[:300]}; it was cut off on its way, was changed, or is another kind of file",
        next_step=_AGAIN,
    ) from None


def _check_directory(file: BinaryIO) -> None:
    """See that the archive's directory is one of few members, before all of it is read into memory."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL_BYTES))
    tail = file.read()
    for found in re.finditer(re.escape(_END), tail):
        start = found.start()
        length = int.from_bytes(tail[start + 12 : start + 16], "little")
        is_large = tail[max(0, start - 20) : start].startswith(_LARGE)
        if is_large or length > _MOST_DIRECTORY_BYTES:
            raise ValueError("its directory is larger than that of any record")


def _checked_members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """What the archive holds, by name: only what a record may hold, and no more than its size can stand for."""
    found: dict[str, zipfile.ZipInfo] = {}
    infos = archive.infolist()
    if len(infos) > _MOST_MEMBERS:
        raise ValueError(f"it has {len(infos)} members")
    for info in infos:
        if not _is_known(info.filename) or info.filename in found:
            raise ValueError(f"it has a member {info.filename[:100]!r}, which no record has")
        if info.flag_bits & 1 or info.compress_type not in {
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        }:
            raise ValueError(f"its member {info.filename} is encrypted or packed in another way")
        most = {".json": _MOST_HEADER_BYTES, ".jsonl": _MOST_TEXT_BYTES}
        if info.file_size > most.get(Path(info.filename).suffix, info.file_size):
            raise ValueError(f"its member {info.filename} is said to have {info.file_size:,} bytes")
        found[info.filename] = info
    places = {info.filename.rpartition("/")[0] for info in infos if DETAIL in info.filename}
    needed = [HEADER, *_members(TRACE, trace.COLUMNS)]
    needed += [name for place in sorted(places) for name in _members(place, events.COLUMNS)]
    if any(f"{VALUES}/{name}" in found for name in (values.INDEX, values.DATA)):
        needed += [f"{VALUES}/{values.INDEX}", f"{VALUES}/{values.DATA}"]
    for name in needed:
        if name not in found:
            raise ValueError(f"it has no member {name}")
    total = sum(info.file_size for info in infos)
    if total > _MOST_RATIO * path.stat().st_size + _SLACK_BYTES:
        raise ValueError(f"it would unpack to {total:,} bytes")
    return found


def _is_known(name: str) -> bool:
    place, _, last = name.rpartition("/")
    if name == HEADER or (place == VALUES and last in {values.INDEX, values.DATA}):
        return True
    if place == TRACE:
        return name in _members(TRACE, trace.COLUMNS)
    process = place.removeprefix(f"{DETAIL}/")
    return re.fullmatch(_PROCESS, process, re.ASCII) is not None and name in _members(
        f"{DETAIL}/{process}", events.COLUMNS
    )


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Write a member to a path of ours, as many bytes as it is said to have."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, _BLOCK_BYTES)
    if target.stat().st_size != info.file_size:
        raise ValueError(f"its member {info.filename} is not as long as it is said to be")
    if info.filename.endswith(".jsonl") and target.read_bytes().count(b"\n") > _MOST_LINES:
        raise ValueError(f"its member {info.filename} has too many lines")


def _header(archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], path: Path) -> Header:
    data = archive.read(members[HEADER])
    version = json.loads(data)["version"]
    if type(version) is not int or version != VERSION:
        newer = type(version) is int and version > VERSION
        raise UsageError(
            "this version of repro-audit does not read the record",
            where=str(path),
            why=f"it has the format {version!r:.50}; this version reads {VERSION}",
            next_step="update repro-audit" if newer else _AGAIN,
        )
    lacking = {each.name for each in fields(Header) if each.default_factory is MISSING}
    for name in sorted(lacking - json.loads(data).keys()):
        raise ValueError(f"its header has no {name}")
    header = loads(Header, data)
    numbers = {
        "seed": (0, header.seed, 1 << 32),
        "steps": (1, header.steps, _MOST_STEPS),
        "until_epoch": (1, 1 if header.until_epoch is None else header.until_epoch, _MOST_STEPS),
        "instant": (0, header.instant, 1 << 40),
    }
    for name, (least, value, limit) in numbers.items():
        if not least <= value < limit:
            raise ValueError(f"{name} is {value}")
    words = {
        "mode": (header.mode, {"build", "script", "command"}),
        "isolation": (header.isolation, {"overlay", "copy", "shared"}),
    }
    for name, (word, known) in words.items():
        if word not in known:
            raise ValueError(f"{name} is {word[:50]!r}")
    if max(len(header.fingerprint), len(header.files), len(header.losses)) > _MOST_FIELDS:
        raise ValueError("it has too many fields")
    for name in header.files:
        _check_relative(name)
    return header


def _check_relative(name: str) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise ValueError(f"it names the file {name[:100]!r}, outside of the program's tree")


def _check_trace(record: Record) -> None:
    _check_lengths(record.directory / TRACE, trace.COLUMNS)
    found = record.trace
    if found.outcome_digest() != record.header.digest:
        raise ValueError("its digest is not that of its observations")


def _check_lengths(directory: Path, described: Columns) -> None:
    """Of what a whole writer wrote, all columns have the same number of rows."""
    rows = {divmod((directory / name).stat().st_size, kind.itemsize) for name, kind in described}
    if len(rows) != 1 or rows.pop()[1]:
        raise ValueError(f"the columns of its {directory.name} have different lengths")


def _check_detail(directory: Path) -> None:
    """See that each site is a line, and each line has what lines have."""
    _check_lengths(directory, events.COLUMNS)
    detail = Detail.open(directory)
    for number in set(detail.site.tolist()):
        _check_site(detail.strings[number])
    for number in set(detail.meta[detail.kind == Kind.LINE].tolist()):
        line = Line.read(detail.strings[number])
        if not all(isinstance(name, str) for name in (*line.names, *line.reads, *line.sets)):
            raise ValueError("a line has something else than names")


def _check_site(text: str) -> None:
    site = Site.read(text)
    if site is None:
        return
    kinds = (str, int, str, bool, int)
    given = (site.file, site.line, site.function, site.made, site.first)
    if any(type(value) is not kind for value, kind in zip(given, kinds, strict=True)):
        raise ValueError("a site is no line of a file")
    if not 0 <= site.line < 1 << 31 or not 0 <= site.first < 1 << 31 or "\0" in site.file:
        raise ValueError("a site is no line of a file")
    if not site.file.startswith("/"):  # elsewhere on the machine that wrote it: never opened
        _check_relative(site.file)


def _check_values(directory: Path) -> None:
    """See that each value lies within the data, and has as many bytes as its form says."""
    if not (directory / values.INDEX).exists():
        return
    size = (directory / values.DATA).stat().st_size
    for line in (directory / values.INDEX).read_bytes().split(b"\n")[:-1]:
        entry = json.loads(line)
        step, phase, name, occurrence = entry["key"]
        shape, start, length, of = (
            entry["shape"],
            entry["start"],
            entry["bytes"],
            entry.get("of", 0),
        )
        whole = (step, phase, occurrence, start, length, of, *shape)
        if len(shape) > _MOST_DIMENSIONS or any(
            type(each) is not int or not 0 <= each < 1 << 62 for each in whole
        ):
            raise ValueError("a value has a number that no value has")
        if type(name) is not str or type(entry["dtype"]) is not str or phase >= len(Phase):
            raise ValueError("a value has no name or no dtype")
        if start + length > size or start % values.ALIGNMENT:
            raise ValueError("a value lies outside of its data")
        numel = _product(shape)
        if not numel:
            if length:
                raise ValueError("a value is not as long as its form says")
            continue
        fmt = format_of(entry["dtype"], max(length // numel, 1))
        if length != numel * fmt.code.itemsize * fmt.components:
            raise ValueError("a value is not as long as its form says")


def _product(shape: Any) -> int:
    numel = 1
    for each in shape:
        numel = min(numel * each, 1 << 62)
    return numel
