"""Where a program is told something from outside: output of commands, files that others change, connections."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from repro_audit.probe.files import is_users
from repro_audit.sources._program import behind
from repro_audit.sources.emulation.callers import asker, installed_package, standard_module
from repro_audit.sources.emulation.opening import holding, replace_open
from repro_audit.sources.emulation.outside import MOST_BYTES
from repro_audit.sources.emulation.stat import FSTAT

if TYPE_CHECKING:
    from types import FrameType

    from repro_audit.context import TrialContext
    from repro_audit.replacements import Replacements
    from repro_audit.sources.emulation.outside import Answers, Question

_LONGEST_WORD = 40
_RUNNING = ("subprocess", "os")
_MARK = "_repro_audit_told"


class Commands:
    """Watches the output of programs that the program starts, where it reads it."""

    def __init__(self, answers: Answers, replacements: Replacements) -> None:
        self._answers = answers
        begin, communicate = subprocess.Popen.__init__, subprocess.Popen.communicate

        def init(process: Any, *args: Any, **kwargs: Any) -> None:
            begin(process, *args, **kwargs)
            users = asker(sys._getframe(1), _RUNNING)
            if users is not None and process.stdout is not None:
                self._watch(process, users)

        def communicated(process: Any, input: Any = None, timeout: float | None = None) -> Any:  # noqa: A002
            spoken: Spoken | None = vars(process).get(_MARK)
            if spoken is None or spoken.begun:
                return communicate(process, input, timeout)
            spoken.silent = True
            out, err = communicate(process, input, timeout)
            return spoken.in_place_of(out), err

        replacements.function(subprocess.Popen, "__init__", init)
        replacements.function(subprocess.Popen, "communicate", communicated)

    def _watch(self, process: Any, users: FrameType) -> None:
        """Put our reader in place of the one of its output."""
        out = process.stdout
        is_text = isinstance(out, io.TextIOWrapper)
        buffered = out.buffer if is_text else out
        raw = getattr(buffered, "raw", buffered)
        if not isinstance(raw, io.FileIO):
            return
        question = self._answers.question(
            "command", users, f"runs {_command(process.args)}", repr(process.args)
        )
        spoken = Spoken(raw, question, self._answers)
        new: Any = spoken if buffered is raw else io.BufferedReader(spoken)
        if is_text:
            new = io.TextIOWrapper(new, encoding=out.encoding, errors=out.errors)
            out.detach()
        if buffered is not raw:
            buffered.detach()
        process.stdout = new
        vars(process)[_MARK] = spoken


def _command(args: Any) -> str:
    """A command's name, and its first words where it is short."""
    words = args if isinstance(args, (str, bytes, os.PathLike)) else " ".join(map(_word, args))
    text = _word(words)
    return f"`{text if len(text) <= _LONGEST_WORD else text[: _LONGEST_WORD - 1] + '…'}`"


def _word(word: Any) -> str:
    return os.fsdecode(word) if isinstance(word, (str, bytes, os.PathLike)) else repr(word)


class Spoken(io.RawIOBase):
    """What a command says, or what it said when that was kept."""

    def __init__(self, raw: io.FileIO, question: Question, answers: Answers) -> None:
        super().__init__()
        self._raw = raw
        self._question = question
        self._answers = answers
        self._kept: bytes | None = None
        self._said = bytearray()
        self._given = 0
        self._ended = False
        self.begun = False
        self.silent = False
        """The output is read in another way."""

    def readable(self) -> bool:
        """As any output of a command."""
        return True

    def fileno(self) -> int:
        """Of the command's own pipe."""
        return self._raw.fileno()

    def readinto(self, buffer: Any, /) -> int | None:
        """Read the output, and hand out what was kept of it instead, if anything was."""
        count = self._raw.readinto(buffer)
        if self.silent or count is None:
            return count
        if not self.begun:
            self.begun = True
            self._kept = self._answers.kept(self._question)
        self._said += buffer[:count]
        if count == 0:
            self._end()
        if self._kept is None:
            return count
        # As much of what was kept as there is of the real output, so that nobody waits who need not.
        part = self._kept[self._given : self._given + (count or len(buffer))]
        if not part and count:
            while self._raw.readinto(buffer):
                pass
            return 0
        buffer[: len(part)] = part
        self._given += len(part)
        return len(part)

    def in_place_of(self, output: Any) -> Any:
        """The output that was kept, where there is some for what was read in one go."""
        if output is None or self._ended:
            return output
        kept = self._answers.kept(self._question)
        is_text = isinstance(output, str)
        self._ended = True
        data = output.encode("utf-8", "surrogateescape") if is_text else output
        self._answers.told(self._question, data)
        if kept is None:
            return output
        return kept.decode("utf-8", "surrogateescape") if is_text else kept

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._answers.told(self._question, bytes(self._said))

    def close(self) -> None:
        """Close the pipe; what was read is told then."""
        if not self.closed:
            super().close()
            if self.begun:
                self._end()
            self._raw.close()


class Files:
    """Watches files outside the program's tree that it reads, and did not write."""

    def __init__(self, answers: Answers, trial: TrialContext, replacements: Replacements) -> None:
        self._answers = answers
        self._written: set[str] = set()
        self._of_trial = f"{trial.directory}{os.sep}"
        self._not_here = tuple(
            f"{os.path.realpath(place)}{os.sep}"
            for place in (trial.root, trial.elsewhere, *trial.temporary, trial.directory)
            if place
        )
        self._opened, self._os_open = builtins.open, os.open
        self._replace(replacements)

    def _replace(self, replacements: Replacements) -> None:
        opened = self._opened

        def open_(file: Any, mode: Any = "r", *args: Any, **kwargs: Any) -> Any:
            reads = isinstance(mode, str) and "r" in mode and "+" not in mode
            if not reads and isinstance(file, (str, bytes, os.PathLike)):
                self._note(file)
            made = self._kept(file, sys._getframe(1)) if reads else None
            return opened(file if made is None else made, mode, *args, **kwargs)

        replace_open(open_, replacements)

    def _note(self, file: Any) -> None:
        """Note what is written, but for what the audit itself does."""
        path = os.fsdecode(file)
        if not path.startswith(self._of_trial):
            self._written.add(os.path.realpath(path))

    def _kept(self, file: Any, frame: FrameType | None) -> int | None:
        """A file with the content that was kept; None where the real one is to be read."""
        if not isinstance(file, (str, bytes, os.PathLike)):
            return None
        users = asker(frame, ("pathlib", "_pyio", "codecs", "tokenize", "fileinput"))
        if users is None:
            return None
        path = os.path.realpath(os.fsdecode(file))
        if (
            path in self._written
            or path.startswith(("/dev/", *self._not_here))
            or not is_users(path)
        ):
            return None
        question = self._answers.question("file", users, f"reads {path}", path)
        content, whole = self._content(path) if self._answers.wants(question) else (None, False)
        if content is None:
            return None
        kept = self._answers.kept(question)
        self._answers.told(question, content, whole=whole)
        return None if kept is None else holding(kept)

    def _content(self, path: str) -> tuple[bytes | None, bool]:
        """A file's content, or what tells of a change of a long one; None for what is no file."""
        try:
            file = self._os_open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:  # the program's own open will say it
            return None, False
        try:
            state = FSTAT(file)
            if not stat.S_ISREG(state.st_mode):
                return None, False
            if state.st_size > MOST_BYTES:
                return json.dumps([state.st_size, state.st_mtime_ns]).encode(), False
            parts = []
            while part := os.read(file, MOST_BYTES):
                parts.append(part)
                if sum(map(len, parts)) > MOST_BYTES:
                    return None, False
            return b"".join(parts), True
        except OSError:
            return None, False
        finally:
            os.close(file)


MEASURES = {
    "os": ("getloadavg", "times", "statvfs", "fstatvfs"),
    "shutil": ("disk_usage",),
    "resource": ("getrusage",),
    "psutil": (
        *("cpu_percent", "cpu_times", "cpu_freq", "disk_usage", "disk_io_counters", "getloadavg"),
        *("net_io_counters", "swap_memory", "pids", "boot_time"),
    ),
}
"""Functions that measure how things stand on the machine, by the module that has them."""


class Measures:
    """Watches what the program measures of the machine: its load, what is free of its disks."""

    def __init__(self, answers: Answers, trial: TrialContext, replacements: Replacements) -> None:
        self._answers = answers
        self._replacements = replacements
        for module, names in MEASURES.items():
            trial.when_imported(module, partial(self._show, module, names))

    def _show(self, module: str, names: tuple[str, ...]) -> None:
        owner = sys.modules[module]
        for name in names:
            original = vars(owner).get(name)
            if original is not None:
                self._replacements.function(owner, name, self._watched(module, name, original))

    def _watched(self, module: str, name: str, original: Any) -> Any:
        def function(*args: Any, **kwargs: Any) -> Any:
            answer = original(*args, **kwargs)
            users = asker(sys._getframe(1))
            if users is None or not isinstance(answer, (int, float, tuple, list)):
                return answer
            question = self._answers.question(
                f"{module}.{name}", users, f"asks {module}.{name}()", repr((args, kwargs))
            )
            kept = self._answers.kept(question)
            written, whole = _written(answer)
            self._answers.told(question, written, whole=whole)
            return answer if kept is None else _made(kept, answer)

        return function


def _written(answer: Any) -> tuple[bytes, bool]:
    """A measure in a form that can be kept, and whether it can be made anew from that."""
    try:
        return json.dumps(answer).encode(), True
    except (TypeError, ValueError):
        return repr(answer).encode(), False


def _made(kept: bytes, like: Any) -> Any:
    """A measure of the same kind as another one."""
    found = json.loads(kept)
    if not isinstance(like, tuple):
        return found
    make = getattr(type(like), "_make", type(like))  # named tuples, and those of C code
    return make(found)


_ON_THEIR_OWN_ACCOUNT = frozenset(
    (
        *("wandb", "mlflow", "comet_ml", "neptune", "clearml", "aim", "sentry_sdk", "torch"),
        *("tensorboard", "multiprocessing", "logging", "IPython", "ipykernel", "debugpy"),
    )
)
"""Who talks over connections of which nothing reaches the program."""
_NO_DATA = b"HTTP/"
"""Of a reply that begins so, the head is passed over: it has the date."""


class Connections:
    """Watches what the program receives over connections. It can not be told again, so it is only compared."""

    def __init__(self, answers: Answers, trial: TrialContext, replacements: Replacements) -> None:
        self._answers = answers
        self._replacements = replacements
        self._received: weakref.WeakKeyDictionary[Any, Received | None] = (
            weakref.WeakKeyDictionary()
        )
        recv, recv_into = socket.socket.recv, socket.socket.recv_into

        def received(connection: Any, size: int, flags: int = 0) -> bytes:
            data = recv(connection, size, flags)
            self._note(connection, data, sys._getframe(1))
            return data

        def received_into(connection: Any, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
            count = recv_into(connection, buffer, nbytes, flags)
            self._note(connection, memoryview(buffer).cast("B")[:count], sys._getframe(1))
            return count

        replacements.function(socket.socket, "recv", received)  # inherited from C code
        replacements.function(socket.socket, "recv_into", received_into)
        trial.when_imported("ssl", self._watch_encrypted)

    def _watch_encrypted(self) -> None:
        encrypted = sys.modules["ssl"].SSLSocket
        original = encrypted.read

        def read(connection: Any, len: int = 1024, buffer: Any = None) -> Any:  # noqa: A002
            found = original(connection, len, buffer)
            data = found if buffer is None else memoryview(buffer).cast("B")[:found]
            self._note(connection, data, sys._getframe(1))
            return found

        self._replacements.attribute(encrypted, "read", read)

    def _note(self, connection: Any, data: Any, frame: FrameType | None) -> None:
        if connection not in self._received:
            self._received[connection] = self._begin(connection, frame)
        received = self._received[connection]
        if received is not None:
            received.add(bytes(data))

    def _begin(self, connection: Any, frame: FrameType | None) -> Received | None:
        users, importing = behind(frame)
        if users is None or importing or _is_on_own_account(frame, users):
            return None
        try:
            peer = connection.getpeername()
        except OSError:
            return None
        if not peer:  # of a pair within the process
            return None
        place = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else os.fsdecode(peer)
        question = self._answers.question("connection", users, f"receives data from {place}", place)
        return Received(question, self._answers)

    def end(self) -> None:
        """Tell what was received so far."""
        for received in list(self._received.values()):
            if received is not None:
                received.end()


class Received:
    """What was received over a connection, as far as it was read."""

    def __init__(self, question: Question, answers: Answers) -> None:
        self._question = question
        self._answers = answers
        self._sum = hashlib.sha256()
        self._head = False
        self._ended = False

    def add(self, data: bytes) -> None:
        """More was received; nothing means that no more comes."""
        if not data:
            self.end()
        self._head = self._head or data.startswith(_NO_DATA)
        if self._head:
            _, end, data = data.partition(b"\r\n\r\n")
            self._head = not end
        self._sum.update(data)

    def end(self) -> None:
        """Tell it, once."""
        if not self._ended:
            self._ended = True
            self._answers.told(self._question, self._sum.digest(), whole=False)

    def __del__(self) -> None:
        self.end()


def _is_on_own_account(frame: FrameType | None, users: FrameType) -> bool:
    while frame is not None and frame is not users:
        filename = frame.f_code.co_filename
        module = standard_module(filename) or installed_package(filename)
        if module.partition(".")[0] in _ON_THEIR_OWN_ACCOUNT:
            return True
        frame = frame.f_back
    return False
