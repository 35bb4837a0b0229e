"""The machine's settings and names decide the result.

## What it does
The audit runs the program as it finds the machine (pinned), then with one thing changed at a time: another time zone
(`TZ`), another locale (`LC_ALL` and `LANG`; one that is installed), the same working directory under another path,
another host (`socket.gethostname`, `platform.node`; `uuid.getnode`, and so `uuid.uuid1`), another user
(`getpass.getuser`, `os.getlogin`, `os.getuid`, and the same home directory under another path: `HOME`, `Path.home`,
`os.path.expanduser`), another umask. Where a line of the program, or a library that it calls, asks for them, these too:
the directory for temporary files (`tempfile`, `TMPDIR`), the one in which the program is started (`os.getcwd`,
`os.path.relpath`, `Path.cwd`), the times of its files (in reverse order, and in the order of their names) and their
inode numbers, as a copy or a checkout has others (`os.stat`, `Path.stat`, `os.path.getmtime`, entries of `os.scandir`),
the number of CPUs (`os.cpu_count`, `os.sched_getaffinity`), the size of the memory (`os.sysconf`,
`psutil.virtual_memory`) and that of the disk (`shutil.disk_usage`, `os.statvfs`, `psutil.disk_usage`). Another result
convicts it, and the report says which of them moved it. It breaks the promise `portable`, and is emulated: host, user,
files, CPUs, memory and disk change for Python's functions and in the environment, not for C code, and files are not
touched. The paths can be changed where trials see the tree through an overlay. What is free of the memory is shown as a
share that is the same in all runs. *Same*: none of them changes anything.

## Why it breaks reproducibility
A machine's settings reach a program by ways that nobody thinks of. Local time gives another hour, and at times another
day, in another zone. A locale decides the order of words that are compared by it, and what `sort` in a shell does.
Absolute paths, host and user names end up in seeds, in keys of caches, and in hashes that split the data.

## Example
The hour of a trip is taken from local time.

```python
from datetime import datetime

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    trips = [1_700_000_000 + 5_000 * number for number in range(64)]
    hours = [datetime.fromtimestamp(trip).hour for trip in trips]
    x = torch.tensor(hours, dtype=torch.float32).view(-1, 1) / 24
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## Use instead
Name the zone.

```python
from datetime import datetime, timezone

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    trips = [1_700_000_000 + 5_000 * number for number in range(64)]
    hours = [
        datetime.fromtimestamp(trip, timezone.utc).hour for trip in trips
    ]
    x = torch.tensor(hours, dtype=torch.float32).view(-1, 1) / 24
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## References
- Python: `datetime.fromtimestamp`: <https://docs.python.org/3/library/datetime.html#datetime.datetime.fromtimestamp>
- Python: `locale`: <https://docs.python.org/3/library/locale.html>
- Reproducible Builds: variations of the environment: <https://reproducible-builds.org/docs/env-variations/>
- Reproducible Builds: timezones: <https://reproducible-builds.org/docs/timezones/>
"""

from __future__ import annotations

import locale
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import environment
from repro_audit.source import Fix, Levels, Scope, Source, Verdict
from repro_audit.sources._program import evidence, noted
from repro_audit.sources.emulation import machine as _machine
from repro_audit.sources.emulation import names
from repro_audit.storage import reads
from repro_audit.storage.facts import Facts, Json

ID = "environment"
PINNED = "as is"
WORKING_DIRECTORY = "working directory"
MOVING = (WORKING_DIRECTORY, _machine.START)
"""Levels that need the tree under another path."""

EAST, WEST = "<+14>-14", "<-10>+10"
"""Zones as POSIX writes them, which need no database. At noon in London it is 2 o'clock there, east a day later."""
FAR_EAST = 6 * 3600
"""Seconds by which a zone is ahead, from which on the one in the west is the other one."""

LANGUAGES = ("en_US.UTF-8", "en_GB.UTF-8", "de_DE.UTF-8", "fr_FR.UTF-8", "es_ES.UTF-8")
PLAIN = ("C.UTF-8", "C", "POSIX")
"""Locales that compare strings by their code points."""


@contextmanager
def time_zone(_trial: TrialContext) -> Iterator[None]:
    """A zone in which most hours are of another day."""
    try:
        with environment({"TZ": WEST if time.localtime().tm_gmtoff > FAR_EAST else EAST}):
            time.tzset()
            yield
    finally:
        time.tzset()


@contextmanager
def language(_trial: TrialContext) -> Iterator[None]:
    """A locale that compares strings otherwise, where one is installed."""
    other = other_locale(os.environ)
    with environment({"LC_ALL": other, "LANG": other}):
        yield


def other_locale(environ: Mapping[str, str]) -> str:
    """A locale of this machine that is not the one in force."""
    ours = next(filter(None, map(environ.get, ("LC_ALL", "LC_COLLATE", "LANG"))), "C")
    plain = _key(ours) in map(_key, PLAIN)
    candidates = (*LANGUAGES, *PLAIN) if plain else PLAIN
    return next((name for name in candidates if _key(name) != _key(ours) and _exists(name)), "C")


def _key(name: str) -> str:
    return name.lower().replace("-", "").replace("posix", "c")


def _exists(name: str) -> bool:
    before = locale.setlocale(locale.LC_COLLATE)
    try:
        locale.setlocale(locale.LC_COLLATE, name)
    except locale.Error:
        return False
    locale.setlocale(locale.LC_COLLATE, before)
    return True


@contextmanager
def working_directory(trial: TrialContext) -> Iterator[None]:
    """The same directory by another path; a target that is named by a relative one is found there too."""
    if trial.elsewhere is None:
        raise RuntimeError("this trial's tree can not be had under another path")
    before = os.getcwd()  # noqa: PTH109 - as a string, to come back to
    there = os.path.relpath(before, trial.root)
    os.chdir(trial.elsewhere / there)
    try:
        with environment({"PWD": os.getcwd()}):  # noqa: PTH109 - what a shell would put there
            yield
    finally:
        os.chdir(before)


@contextmanager
def start_directory(trial: TrialContext) -> Iterator[None]:
    """The same directory by another path, and the target's file where it was: from here to there it is another way."""
    trial.start = Path.cwd()
    try:
        with working_directory(trial):
            yield
    finally:
        trial.start = None


@contextmanager
def temporary_directory(trial: TrialContext) -> Iterator[None]:
    """The same directory for temporary files by another path."""
    *_, other = trial.temporary
    before = tempfile.tempdir
    try:
        with environment({"TMPDIR": str(other)}):
            tempfile.tempdir = None
            yield
    finally:
        tempfile.tempdir = before


@contextmanager
def umask(_trial: TrialContext) -> Iterator[None]:
    """New files are the owner's alone, or everybody's to read."""
    private, common = 0o077, 0o022
    before = os.umask(private)
    if before == private:
        os.umask(common)
    try:
        yield
    finally:
        os.umask(before)


def _as_watched(_trial: TrialContext) -> AbstractContextManager[None]:
    """Nothing more: `_machine.watched` answers by the level."""
    return nullcontext()


LEVELS: dict[str, Callable[[TrialContext], AbstractContextManager[None]]] = {
    "time zone": time_zone,
    "locale": language,
    WORKING_DIRECTORY: working_directory,
    names.HOST: names.another_host,
    names.USER: names.another_user,
    "umask": umask,
    _machine.START: start_directory,
    _machine.TEMPORARY: temporary_directory,
}
LEVELS |= {level: _as_watched for level in _machine.ASKS if level not in LEVELS}

_BY_NAME = Fix(
    summary="Let no file's time decide anything, since a copy, a checkout or a download has others: put what orders "
    "the files into their names.",
    snippet='newest = max(Path("runs").glob("epoch-*.pt"))  # epoch-0007.pt; not key=os.path.getmtime',
)
FIXES = {
    "time zone": Fix(
        summary="Name the time zone wherever a time becomes a date or an hour.",
        snippet="from datetime import datetime, timezone\n\n"
        "when = datetime.fromtimestamp(seconds, timezone.utc)  # not local time",
    ),
    "locale": Fix(
        summary="Compare strings by their code points, and say LC_ALL=C to programs that you start.",
        snippet="words = sorted(words)  # not key=locale.strxfrm\n"
        'subprocess.run(["sort", path], env={**os.environ, "LC_ALL": "C"})',
    ),
    WORKING_DIRECTORY: Fix(
        summary="Let no absolute path decide anything: make keys, seeds and orders from paths below the data's root.",
        snippet="key = str(path.relative_to(root))  # not str(path.resolve())",
    ),
    names.HOST: Fix(
        summary="Let nothing that names the host decide anything: pass what differs between machines as an argument.",
        snippet='parser.add_argument("--shard", type=int, required=True)',
    ),
    names.USER: Fix(
        summary="Let neither the user's name or number nor the path of the home directory decide anything: pass what "
        "differs between users as an argument.",
        snippet='parser.add_argument("--seed", type=int, default=0)',
    ),
    "umask": Fix(
        summary="Give files the permissions that the program relies on, whatever the umask.",
        snippet="path.chmod(0o644)",
    ),
    _machine.START: Fix(
        summary="Let no path that hangs on where the program is started decide anything: make keys, seeds and splits "
        "from paths below the data's root.",
        snippet="key = path.relative_to(root).as_posix()  # not os.path.relpath(path)",
    ),
    _machine.TEMPORARY: Fix(
        summary="Let no path of a temporary file or directory decide anything: make keys, seeds and splits from names "
        "of the program's own.",
        snippet='key = "scratch/features"  # not tempfile.gettempdir()',
    ),
    **dict.fromkeys((_machine.REVERSED_TIMES, _machine.SORTED_TIMES), _BY_NAME),
    _machine.INODES: Fix(
        summary="Know files by their names, not by their inode numbers.",
        snippet="files.sort(key=lambda path: path.name)  # not path.stat().st_ino",
    ),
    _machine.CPUS: Fix(
        summary="Fix the number of parts that the work is cut into; the number of CPUs may say how many run at once.",
        snippet="parts = 8  # not os.cpu_count()\n"
        "pool = multiprocessing.Pool(os.cpu_count())\n"
        "results = pool.map(work, range(parts))",
    ),
    _machine.MEMORY: Fix(
        summary="Take sizes that decide the result, such as the batch's, from the caller.",
        snippet='parser.add_argument("--batch-size", type=int, default=64)',
    ),
    _machine.DISK: Fix(
        summary="Take sizes that decide the result, such as how much is cached, from the caller.",
        snippet='parser.add_argument("--cached-samples", type=int, default=10_000)',
    ),
}


def levels(facts: Facts) -> Levels:
    """All that may matter unseen, and those that a line asks for; no other path where the floor's trial had none."""
    survey = facts.survey.get(ID) or {}
    movable, asked = survey.get("movable", False), survey.get("asked") or {}
    return Levels(
        varied=tuple(
            name
            for name in LEVELS
            if (movable or name not in MOVING)
            and (survey.get("apart") or name != _machine.TEMPORARY)
            and (name not in _machine.ASKS or asked.get(name))
        )
    )


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Change one thing."""
    with _machine.watched(level, trial), LEVELS.get(level, _as_watched)(trial):
        yield


def survey(trial: TrialContext) -> Json:
    """What was changed, whether the tree can be had under another path, and the lines that asked."""
    return {
        "level": trial.setting.get(ID),
        "movable": trial.elsewhere is not None,
        "apart": len(trial.temporary) > 1,
        "asked": _machine.asked(trial),
    }


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say which of them moved the result, and which lines asked for it."""
    moved = [level.level for level in judgement.levels if level.diverged]
    survey = facts.survey.get(ID) or {}
    rest = (
        ""
        if survey.get("movable")
        else "; the working directory could not be had under another path"
    )
    tried = ", ".join(level.level for level in judgement.levels)
    asked = survey.get("asked") or {}
    lines = [
        line
        for level in moved
        for line in evidence(asked.get(level) or (), _machine.ASKS.get(level, ""))
    ]
    return Verdict.of(
        judgement,
        held=f"another one of these changes nothing: {tried}{rest}",
        broke=f"the result depends on the machine's settings: {', '.join(moved)}{rest}",
        evidence=tuple(dict.fromkeys(lines)),
    )


def fix(facts: Facts) -> Fix:
    """What to write for the setting that moved the result."""
    moved = (facts.diverged or {}).get("level")
    return next((fix for name, fix in FIXES.items() if name == moved), FIXES["time zone"])


def lines(found: Json) -> tuple[tuple[str, int], ...]:
    """In a trial of a level that is tried where a line asks for it: those lines."""
    found = found or {}
    return noted((found.get("asked") or {}).get(found.get("level")))


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.PORTABLE,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    reads=frozenset((reads.ENVIRONMENT,)),
    lines=lines,
    fix=fix,
    survey=survey,
)
