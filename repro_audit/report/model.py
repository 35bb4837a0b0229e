"""The model of a report: what an audit found, from which every format is a pure function.

Strings that come from the program under audit are kept as they came; each format bounds and
escapes them. The JSON holds every field, and is read back by these annotations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from repro_audit import __version__, notebook
from repro_audit.source import Scope

PROMISES = (Scope.RERUN, Scope.SETTINGS, Scope.PORTABLE)
"""The promises, from the narrowest to the widest; `Scope.NONE` promises nothing."""


class SourceStatus(str, Enum):
    """What became of a source."""

    BROKE = "broke"
    HELD = "held"
    DELEGATED = "delegated"
    NOT_EXERCISED = "not-exercised"
    ERROR = "error"


class Confidence(str, Enum):
    """How sure a conviction is: repeated and undone by the pin, or not."""

    PROVEN = "proven"
    SUSPECTED = "suspected"


class PromiseStatus(str, Enum):
    """What became of a promise."""

    HELD = "held"
    BROKE = "broke"
    UNKNOWN = "unknown"


class Outcome(str, Enum):
    """The verdict of an audit."""

    REPRODUCIBLE = "reproducible"
    NOT_REPRODUCIBLE = "not-reproducible"
    INCONCLUSIVE = "inconclusive"
    TARGET_FAILED = "target-failed"

    @property
    def exit_code(self) -> int:
        """The exit code of the command that ends with this verdict."""
        return _EXIT_CODES[self]


_EXIT_CODES = {
    Outcome.REPRODUCIBLE: 0,
    Outcome.NOT_REPRODUCIBLE: 1,
    Outcome.TARGET_FAILED: 3,
    Outcome.INCONCLUSIVE: 4,
}


class DivergenceKind(str, Enum):
    """What sort of difference a divergence is."""

    VALUE = "value"
    ORDER = "order"
    STRUCTURE = "structure"
    NAN_OR_SIGNED_ZERO = "nan-or-signed-zero"


class TrialStatus(str, Enum):
    """How a trial ended."""

    OK = "ok"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    NO_STEPS = "no-steps"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What was audited."""

    spec: str
    """As given on the command line: `train.py:build`."""
    mode: str
    """`build` or `script`."""
    argv: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """With its arguments."""
        return " ".join((self.spec, *self.argv))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the audit was made."""

    seed: int
    steps: int
    """Optimizer steps a trial, as asked for."""
    fresh: bool
    """Every trial had an interpreter of its own."""
    isolation: str
    """Where the trials' writes went: `overlay`, `copy` or `shared`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """Where the audit was made."""

    python: str
    torch: str | None
    """None where the audit ended before torch was found."""
    cpu: str
    threads: int | None
    """Intra-op threads of a trial left as it is."""
    devices: tuple[str, ...]
    """Such as `("cpu", "cuda:0 NVIDIA H200")`."""
    machines: tuple[str, ...] = ()
    """Of a cluster: the kinds of machine that there were, the one first whose other entries stand here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """A few lines of a file, as they stand there."""

    first: int
    """The number of the first one; in a notebook, in its cell."""
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """A line of the user's own code."""

    file: str
    """Relative to the directory that the audit was started in."""
    line: int
    """In a notebook, of its cell."""
    function: str | None = None
    code: str | None = None
    """The line itself, stripped."""
    cell: int | None = None
    """In a notebook: the cell, as a kernel counts; see `repro_audit.notebook`."""
    excerpt: Excerpt | None = None
    """The line among those around it; None where the file could not be read, or has changed since."""

    @property
    def place(self) -> str:
        """`train.py:12`, or `train.ipynb, cell 4, line 2`."""
        if self.cell is None:
            return f"{self.file}:{self.line}"
        return notebook.in_cell(self.file, self.cell, self.line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """By how much two values differ."""

    max_abs: float
    max_ulp: int | None
    mismatched: int
    """Elements that differ, of `numel`."""
    numel: int
    first_index: tuple[int, ...] | None = None
    """Where the first element that differs is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One station on the way of a difference."""

    what: str
    """`batch.0`, `loss`."""
    where: str
    """`step 0, data`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDrift:
    """How far the parameters of one module, of all below it, or of several in a row, have drifted apart."""

    name: str
    parameters: int
    differing: tuple[int, ...]
    """How many of them differ, after each step of the drift."""
    max_abs: tuple[float | None, ...]
    """The largest difference of those whose values were saved; None where nothing differs, or nothing was saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far the parameters of two runs have drifted apart, by layer and step."""

    steps: tuple[int, ...]
    """All, or evenly many."""
    layers: tuple[LayerDrift, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What made two runs part, as both runs showed when every op and line of them was watched."""

    what: str
    """How the runs part here, one sentence without its full stop."""
    step: int
    phase: str
    op: str | None = None
    module: str | None = None
    generator: str = ""
    """The random generator that parted, as the program calls it; empty for what is no draw."""
    location: Location | None = None
    size: Size | None = None
    """Of the op's output."""
    evidence: tuple[str, ...] = ()
    """A line each: the sample, the worker, the file and its digests, the generator."""
    also: tuple[Cause, ...] = ()
    """What parts the runs by itself once the first cause is out of the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """The first thing, in execution order, that two runs did not have in common.

    None marks what does not apply.
    """

    step: int | None
    phase: str | None
    """`init`, `data`, `forward`, `backward` or `optimizer`."""
    kind: DivergenceKind
    name: str | None
    """Of the observation: `batch.0`, `grad.encoder.weight`."""
    size: Size | None = None
    detail: str = ""
    """Such as `shape 4x2 against 4x3`, `only in the second run`."""
    within: str = ""
    """What one run showed of two processes, where no two runs differ."""
    cause: Cause | None = None
    no_cause: str = ""
    """Why no cause was found; empty where none was looked for."""
    way: tuple[Link, ...] = ()
    """From the first difference to the loss."""
    drift: Drift | None = None
    """None where no parameter differs, or noise would be counted too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What to write, and how that is known to help."""

    summary: str
    snippet: str
    """Python, or shell where it must be; may be empty."""
    verified: bool
    """Both runs of the pair agreed with just this written; that the cause is proven is no proof of the fix."""
    proof: str = ""
    """Which runs agreed, with the fix or with the cause pinned; empty where none did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """One level of a source beside its pinned one."""

    level: str
    diverged: bool | None
    """None where no run under this level came to an end."""
    trial: str | None
    """The id of the run that decided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossCurve:
    """The losses of one run."""

    label: str
    """The level that the run had: `pinned (2)`."""
    values: tuple[float, ...]
    """One a step, from step 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceResult:
    """What became of one source of the catalogue."""

    id: str
    title: str
    scope: Scope
    status: SourceStatus
    reason: str
    """Why it has that status, one sentence without its full stop.

    Sources of the same status and reason share a line in the terminal.
    """
    left_out: bool = False
    """The user did not want it tried."""
    unfinished: bool = False
    """The time that the user gave was over before all of it was tried; the status is `not-exercised`."""
    condition: str = ""
    """Of a delegated one: what its caller must seed, and by which call."""
    confidence: Confidence | None = None
    """Set where, and only where, the status is `broke`."""
    levels: tuple[LevelResult, ...] = ()
    divergence: Divergence | None = None
    fix: Fix | None = None
    evidence: tuple[str, ...] = ()
    """A line each: which levels agree, how many of how many runs differ."""
    losses: tuple[LossCurve, LossCurve] | None = None
    """The pinned run's, then the diverging one's."""
    together: tuple[str, ...] = ()
    """Of one that breaks nothing alone: the ids of the others that it takes."""
    accepted: str = ""
    """Of one that broke: why the user accepts that, so that the verdict passes it over; empty where nobody did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRecord:
    """One run of the target."""

    id: str
    setting: Mapping[str, str]
    """Level by source id; only what differs from the pinned setting."""
    status: TrialStatus
    seconds: float
    digest: str | None
    """Of all outcomes in order; None where the run left no trace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFailure:
    """Why the target could not be audited: it failed by itself, with everything pinned."""

    what: str
    """One sentence."""
    where: str = ""
    why: str = ""
    next_step: str = ""
    traceback: str = ""
    """The program's own, without the tool's frames."""
    output: str = ""
    """The end of what it printed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What the sources add up to."""

    verdict: Outcome
    scopes: Mapping[Scope, PromiseStatus]

    @property
    def exit_code(self) -> int:
        """The exit code that the verdict maps to."""
        return self.verdict.exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """How much of the catalogue was tried."""

    tried: int
    of: int
    """All sources, also those that the program or the machine gives no occasion for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """That a report is about two runs, one of them recorded, rather than about sources."""

    reference: str
    """What it is compared with: `golden.repro`."""
    other: str
    """What is compared: `this run`."""
    within: str = ""
    """Of two that are equal within a tolerance alone: the tolerance, and how far they are apart."""


RECORD = "record"
"""Stands for the id of a source in a report of two runs: its one entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that an audit found."""

    target: Target
    require: Scope
    """The promise that the exit code enforces."""
    settings: Settings
    environment: Environment
    sources: tuple[SourceResult, ...]
    """The whole catalogue, in its order."""
    trials: tuple[TrialRecord, ...]
    """In the order of their ids."""
    seconds: float
    unexplained: Divergence | None = None
    """Set where pinned runs differ among themselves and no source accounts for it."""
    inconclusive: str | None = None
    """Why nothing can be said of a rerun: noise floor not reached, nothing trained."""
    nothing_at_stake: str | None = None
    """Why runs that agree prove nothing of a training: no parameter changed, the loss is NaN."""
    failure: TargetFailure | None = None
    """Set where the target itself failed; nothing else is then known."""
    assumptions: tuple[str, ...] = ()
    """A line each: `optimizer: SGD, lr 0.01`."""
    coverage: str = ""
    """What was exercised: `4 of 8 batches, 8 steps, 2 epochs`."""
    notes: tuple[str, ...] = ()
    """Such as `writes are shared: the tree is too large to copy`."""
    further: tuple[str, ...] = ()
    """What a longer trial may come to that these did not, one sentence each without its full stop."""
    comparison: Comparison | None = None
    """Set where two runs were compared; `sources` has one entry then, `RECORD`."""
    version: str = field(default=__version__)

    @property
    def decision(self) -> Decision:
        """The verdict, the promises and the exit code."""
        return decide(
            self.sources,
            require=self.require,
            unexplained=self.unexplained is not None,
            inconclusive=self.inconclusive is not None,
            failed=self.failure is not None,
            at_stake=self.nothing_at_stake is None,
        )

    def tried(self, *scopes: Scope) -> Tried:
        """How many of the sources of some scopes were tried."""
        sources = [source for source in self.sources if source.scope in scopes]
        untried = [source for source in sources if source.status is SourceStatus.NOT_EXERCISED]
        return Tried(tried=len(sources) - len(untried), of=len(sources))

    @property
    def conditions(self) -> tuple[str, ...]:
        """What the caller of the program must seed, for the verdict to hold."""
        return tuple(source.condition for source in self.sources if source.condition)

    @property
    def accepted(self) -> tuple[SourceResult, ...]:
        """What broke and is accepted."""
        return tuple(source for source in self.sources if source.accepted)

    @property
    def verdict(self) -> Outcome:
        """The verdict under the required promise."""
        return self.decision.verdict

    @property
    def exit_code(self) -> int:
        """The exit code of the command."""
        return self.decision.exit_code


def required_promises(require: Scope) -> tuple[Scope, ...]:
    """The promises that a requirement covers: its own and every narrower one."""
    return PROMISES[: PROMISES.index(require) + 1]


def broken_promise(source: SourceResult, sources: Sequence[SourceResult]) -> Scope:
    """The promise that a source counts for: what takes several is broken only where all of them may vary."""
    scopes = [source.scope, *(other.scope for other in sources if other.id in source.together)]
    promises = [scope for scope in scopes if scope in PROMISES]
    return max(promises, key=PROMISES.index, default=source.scope)


def decide(
    sources: Sequence[SourceResult],
    *,
    require: Scope,
    unexplained: bool = False,
    inconclusive: bool = False,
    failed: bool = False,
    at_stake: bool = True,
) -> Decision:
    """What the sources add up to.

    A promise broke where a source of its scope did, or several together of which it is the widest; an
    unexplained difference breaks `rerun`. It is unknown where a source of it ended in an error or is unfinished, and
    none broke, or where nothing of it could be exercised. The latter does not stand in the way of a verdict: there was
    nothing to ask. The repeats of the pinned run exercise `rerun` by themselves, unless they were `inconclusive`.
    Sources without a scope decide nothing.

    What broke and is accepted is passed over, as if it had not been tried.

    Where nothing was `at_stake`, runs that agree hold no promise, and no verdict is reached: what differs shows that
    a promise broke, but not what a training that trains would do.

    Args:
        sources: results, in any order.
        require: the promise that the verdict is about, with all narrower ones.
        unexplained: pinned runs differ and no source accounts for it.
        inconclusive: the noise floor was not reached, or nothing was trained.
        failed: the target itself failed.
        at_stake: the training changed something that runs could differ in.
    """
    if failed:
        return Decision(
            verdict=Outcome.TARGET_FAILED, scopes=dict.fromkeys(PROMISES, PromiseStatus.UNKNOWN)
        )
    seen = {
        scope: {s.status for s in sources if broken_promise(s, sources) is scope and not s.accepted}
        for scope in PROMISES
    }
    seen[Scope.RERUN].add(SourceStatus.ERROR if inconclusive else SourceStatus.HELD)
    for source in sources:
        if source.unfinished and source.scope in seen:
            seen[source.scope].add(SourceStatus.ERROR)
    if not at_stake:
        for statuses in seen.values():
            statuses.add(SourceStatus.ERROR)
    if unexplained:
        seen[Scope.RERUN].add(SourceStatus.BROKE)
    scopes = {scope: _promise(seen[scope]) for scope in PROMISES}
    required = required_promises(require)
    if not at_stake:
        verdict = Outcome.INCONCLUSIVE
    elif any(scopes[scope] is PromiseStatus.BROKE for scope in required):
        verdict = Outcome.NOT_REPRODUCIBLE
    elif any(SourceStatus.ERROR in seen[scope] for scope in required):
        verdict = Outcome.INCONCLUSIVE
    else:
        verdict = Outcome.REPRODUCIBLE
    return Decision(verdict=verdict, scopes=scopes)


def _promise(statuses: set[SourceStatus]) -> PromiseStatus:
    if SourceStatus.BROKE in statuses:
        return PromiseStatus.BROKE
    if SourceStatus.ERROR in statuses:
        return PromiseStatus.UNKNOWN
    if statuses & {SourceStatus.HELD, SourceStatus.DELEGATED}:
        return PromiseStatus.HELD
    return PromiseStatus.UNKNOWN
