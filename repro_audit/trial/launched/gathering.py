"""What the processes of a trial's command left, made into one trial's trace and facts."""

from __future__ import annotations

import dataclasses
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.errors import InternalError
from repro_audit.sources import of_trial
from repro_audit.storage.border import loads
from repro_audit.storage.events import DETAIL, process_of_rank, processes
from repro_audit.storage.facts import Facts, Failure
from repro_audit.storage.trace import Trace
from repro_audit.trial.launched.hook import UNUSABLE
from repro_audit.trial.launched.ranks import merge_facts, merge_logs, merge_traces, merge_values
from repro_audit.trial.launched.traced import ABOUT, OUTSIDE, PROCESSES, About
from repro_audit.trial.request import DEFECT, FACTS, VALUES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from repro_audit.storage.facts import Json
    from repro_audit.trial.request import TrialRequest

_OUTSIDE_FAILS = Failure(
    what="The command has a service start its processes, as srun does; they do not see the trial's view of the tree.",
    why="they would write to your own files",
    next_step="name a directory that all nodes share: --trace-dir DIR",
)
_SHOWN = 4
"""So many of the interpreters that were seen are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One interpreter below the trial's process."""

    place: Path
    about: About
    facts: Facts | None = None
    """None for one that never imported torch, still runs, or died."""

    @property
    def trained(self) -> bool:
        """Whether it made a step."""
        return self.facts is not None and self.facts.steps > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The interpreters of a trial, in the order of their starts."""

    processes: tuple[Process, ...] = ()

    @classmethod
    def of(cls, directory: Path) -> Gathered:
        """What a trial's directory holds by now."""
        places = sorted((directory / PROCESSES).iterdir(), key=lambda place: int(place.name))
        return cls(processes=tuple(filter(None, map(_process, places))))

    @property
    def training(self) -> tuple[Process, ...]:
        """Those that trained, by rank."""
        return tuple(
            sorted(
                (process for process in self.processes if process.trained),
                key=lambda process: (process.about.rank, int(process.place.name)),
            )
        )

    @property
    def is_complete(self) -> bool:
        """Whether as many processes have trained as belong together, and no more is to come of any."""
        training = self.training
        return bool(training) and len(training) >= max(process.about.world for process in training)


def _process(place: Path) -> Process | None:
    """What a process left so far; None while it has not even begun."""
    facts = None
    with suppress(FileNotFoundError):
        facts = Facts.load(place / FACTS)
    try:
        about = loads(About, (place / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Process(place=place, about=about, facts=facts)


def gather(request: TrialRequest, gathered: Gathered, status: int) -> Facts:
    """Make one trial of what all processes left; `status` is the command's exit status, negative for a signal.

    Raises:
        InternalError: ours failed in one of them.
    """
    for process in gathered.processes:
        with suppress(FileNotFoundError):
            text = (process.place / DEFECT).read_text(encoding="utf-8")
            raise InternalError(f"a process of the command failed in repro-audit itself:\n{text}")
    training = gathered.training
    bystanders = {process.about.words for process in gathered.processes} - {
        process.about.words for process in training
    }
    facts = _facts(request, gathered, status)
    if facts.failure is None:
        if len(training) > 1:
            facts = dataclasses.replace(facts, survey=_surveys(request, facts, training))
        _keep(request, [process.place for process in training])
    return dataclasses.replace(facts, bystanders=tuple(sorted(filter(_is_own, bystanders))))


def _surveys(request: TrialRequest, facts: Facts, training: Sequence[Process]) -> dict[str, Json]:
    """What each source found in the first rank, or makes of what it found in all of them."""
    traces = [Trace.open(process.place / "trace") for process in training]
    sources = of_trial(request.plugins)
    surveys = dict(facts.survey)
    for name in surveys:
        together = sources[name].survey_of_ranks
        if together is not None:
            found = [process.facts.survey.get(name) for process in training if process.facts]
            surveys[name] = together(traces, found)
    return surveys


def _is_own(words: tuple[str, ...]) -> bool:
    """Whether an interpreter can be told by its words: those that multiprocessing starts look alike."""
    return not any(word.startswith("from multiprocessing") for word in words)


def _facts(request: TrialRequest, gathered: Gathered, status: int) -> Facts:
    if (request.directory / OUTSIDE).exists():
        return Facts(failure=_OUTSIDE_FAILS)
    failures = [
        process.facts.failure
        for process in gathered.processes
        if process.facts is not None and process.facts.failure is not None
    ]
    for failure in failures:
        if not failure.stopped_training:
            return Facts(failure=failure)
    training = gathered.training
    learnt = [process.facts for process in training if process.facts is not None]
    if status and (not learnt or learnt[0].ended):
        return Facts(failure=_of_status(status))
    if learnt:
        return merge_facts(learnt) if len(learnt) > 1 else learnt[0]
    return Facts(failure=_never_trained(request, gathered.processes, failures))


def _keep(request: TrialRequest, places: Sequence[Path]) -> None:
    """Make what the processes that trained have left the trial's own."""
    directory = request.directory
    window = request.watch.window
    watched = places[(window.rank or 0) % len(places)] if window is not None else places[0]
    if len(places) > 1:
        merge_traces([place / "trace" for place in places], directory / "trace")
        merge_values([place / VALUES for place in places], directory / VALUES)
        merge_logs(places, directory)
    if window is not None and window.rank is None:
        for rank, place in enumerate(places[1:], 1):
            for name, process in processes(place / DETAIL).items():
                shutil.move(process, watched / DETAIL / process_of_rank(name, rank))
    for file in watched.iterdir():
        if file.name not in {FACTS, ABOUT} and not (directory / file.name).exists():
            shutil.move(file, directory / file.name)


def _of_status(status: int) -> Failure:
    """A command that failed, and no Python below it told why."""
    if status < 0:
        name = f"signal {-status}"
        with suppress(ValueError):
            name = signal.Signals(-status).name
        return Failure(what=f"the command was killed by {name}")
    return Failure(
        what=f"the command exited with status {status}", why="see the end of its output below"
    )


def _never_trained(
    request: TrialRequest, processes: Sequence[Process], failures: Sequence[Failure]
) -> Failure:
    """What to say of a command that came to its end, and nothing in it trained."""
    what = f"The target never trained: {Path(request.target.launched[0]).name} ended without a step of an optimizer."
    unusable = request.directory / UNUSABLE
    if unusable.exists():
        python, lack = unusable.read_text(encoding="utf-8").splitlines()[:2]
        return Failure(
            what=f"The command starts a Python that can not be observed: {lack}.",
            traceback=python,
            next_step=f"install repro-audit in its environment too: {python} -m pip install repro-audit",
            stopped_training=True,
        )
    if failures:  # torch was imported: the probe tells what it saw
        return dataclasses.replace(failures[-1], what=what)
    if not processes:
        return Failure(
            what=what,
            why="no Python was seen below it that has torch: another program, an interpreter that is started with -I "
            "or -E or without PYTHONPATH, one in an environment without torch, or one on another machine "
            "(--trace-dir)",
            stopped_training=True,
        )
    shown = "; ".join(" ".join(process.about.words) for process in processes[:_SHOWN])
    return Failure(
        what=what,
        why=f"no Python below it imported torch; seen were: {shown}",
        stopped_training=True,
    )
