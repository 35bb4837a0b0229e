"""The central abstraction: a source of nondeterminism that pins, varies, undoes and explains itself.

Each file in `repro_audit/sources` builds one `Source`. Its file name is the id, its docstring the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.experiment.design import Levels as Levels  # noqa: PLC0414 - sources find it here
from repro_audit.fixes.remedies import Remedy
from repro_audit.option import Option
from repro_audit.storage.facts import Facts, Json
from repro_audit.torch_internals import Internal

if TYPE_CHECKING:
    from repro_audit.storage.trace import Trace


class Scope(str, Enum):
    """The promise that a source breaks: the same command again, other settings, another machine, or none."""

    RERUN = "rerun"
    SETTINGS = "settings"
    PORTABLE = "portable"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fix:
    """What to write to fix what a source broke."""

    summary: str
    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A line to blame that a source knows by itself."""

    what: str
    """What is wrong with it, one sentence without its full stop."""
    file: str
    """Relative to the directory that the audit was started in."""
    line: int
    function: str | None = None
    code: str = ""
    step: int | None = None
    """Of what one run has shown, the step, the phase and the observation; else those of the pair that differs."""
    phase: str | None = None
    name: str | None = None
    within: str = ""
    """And how two processes of that run stand to each other there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A source's own reading of what the experiment found."""

    status: str
    """`broke`, `held`, `delegated`, `not-exercised` or `error`."""
    reason: str
    evidence: tuple[str, ...] = ()
    seen: bool = False
    """One run has shown it, so that no varied one is needed."""
    condition: str = ""
    """Of a delegated one: what its caller must seed, and by which call."""

    @classmethod
    def of(
        cls, judgement: Judgement, *, held: str, broke: str, evidence: tuple[str, ...] = ()
    ) -> Verdict:
        """The outcome in words, with its evidence where the source broke."""
        if judgement.status == "broke":
            return cls(status="broke", reason=broke, evidence=evidence)
        words = held if judgement.status == "held" else ""
        return cls(status=judgement.status, reason=judgement.note or words)


@dataclass(frozen=True, slots=True, kw_only=True)
class FixCost:
    """How to measure what a fix costs in speed."""

    words: str
    """Beginning of a sentence that a ratio ends: "deterministic algorithms take"."""
    fixed: str
    """The level that does what the fix does."""
    without: str
    """The level to compare it with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondFloor:
    """For a source that can be pinned only once two runs with everything pinned have shown what changes."""

    wanted: Callable[[Facts], bool]
    """Whether the first run did what may change."""
    compare: Callable[[Facts, Facts, Path], Json]
    """From both runs' facts, and the first one's directory: the survey that holds from then on."""
    is_loose: Callable[[Json], bool]
    """Whether, by that survey, some of what changes can not be pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPin:
    """How `repro-audit exec` pins a source in a run that is no trial; it changes no result on purpose."""

    variables: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What is set in the environment, unless the user has set it."""
    line: str = ""
    """What each Python runs once it has imported torch, and what a user would write; the program may change it."""
    words: str = ""
    """What the pinned level does in each Python, where `apply` is what puts it in force."""
    flag: str = ""
    """The flag of `repro-audit exec` that asks for it, where it is not pinned unasked."""
    asked: Callable[[str], Mapping[str, str]] = lambda _value: {}
    """What is set in the environment for a value of that flag."""


def in_words(*, held: str, broke: str) -> Callable[[Judgement, Facts], Verdict]:
    """A `judge` for sources whose outcome needs no reading of their own."""
    return lambda judgement, _facts: Verdict.of(judgement, held=held, broke=broke)


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, or `a, b and c`; empty for none."""
    *head, last = (*names,) or ("",)
    return f"{', '.join(head)} and {last}" if head else last


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One documented cause of nondeterminism: a factor with a pinned level and varied ones."""

    name: str
    """`__name__` of the module that defines it; the id is its last part."""
    doc: str | None
    """`__doc__` of that module: a summary sentence, then the sections that STYLE fixes."""
    scope: Scope
    pinned: str
    """The level that is in force unless a trial varies this source."""
    levels: Callable[[Facts], Levels | str]
    """The levels for a program, or the reason why the source can not be exercised on it."""
    judge: Callable[[Judgement, Facts], Verdict]
    """Puts the outcome in words; may find a divergence `delegated`, or an equality broken."""
    fix: Callable[[Facts], Fix]
    """What to write, with the program's own numbers in it."""
    fix_of_draw: Callable[[str], Fix | None] | None = None
    """What to write instead where the line to blame draws from a generator, by the generator's name."""
    remedies: tuple[Remedy, ...] = ()
    """How to rewrite the line to blame, by what it calls: the first that fits is tried, and shown as a diff."""
    pinned_by_fix: bool = False
    """The pinned level does just what `fix` writes: runs that agree when pinned have tried it."""
    pinned_fix: Callable[[Facts], Fix] | None = None
    """What to write instead where a removal was tried and the pair still differed: `fix` then fixes nothing."""
    apply: Callable[[str, TrialContext], AbstractContextManager[None]] = lambda *_: nullcontext()
    """Puts a level in force in a trial's process, before the target is loaded; at the end all is as it was before."""
    places: Callable[[Facts], tuple[Place, ...]] | None = None
    """Lines to blame, for a source whose two runs have none in common that an inspection could find."""
    names_cause: bool = False
    """It says itself what is to blame, in `places` or in its verdict: a closer look at the pair would mislead."""
    yields_to: tuple[str, str] | None = None
    """Another source that takes the blame where its runs differ in the same way, by its id, and how to say so."""
    survey_of_pair: Callable[[Trace, Trace], Json] | None = None
    """What the pair that differs shows and neither run alone; `Facts.survey[id]` is what it returns."""
    second_floor: SecondFloor | None = None
    """None where one run tells all there is to pin."""
    after_first_run: str | None = None
    """The level under which a trial finds the tree as the first run left it."""
    resumed: str | None = None
    """The level under which a trial is the second half of a training, in a process of its own."""
    at_first_kernel: bool = False
    """Libraries read its levels at their first kernel; the zygote's imports may have run one."""
    decides_code: bool = False
    """What `torch.compile` makes depends on the level, so that trials under different ones share none of it."""
    run_pin: RunPin | None = None
    """None where pinning it changes results on purpose."""
    as_recorded: Callable[[str, str], str | None] = lambda _field, _value: None
    """The level under which a field of what another run ran on has the value here that it had there."""
    fix_cost: FixCost | None = None
    """None where the fix costs no speed to speak of."""
    more_seeds: Callable[[str], tuple[str, ...]] | None = None
    """Levels like a varied one, each another seed: how far their results are apart is what a difference is held
    against."""
    places_trials: bool = False
    """Its varied levels are kinds of machine, of `Facts.machines`: a trial runs on one of that kind."""
    environment: Callable[[str], Mapping[str, str]] = lambda _level: {}
    """What a level sets in the environment of a new interpreter."""
    survey: Callable[[TrialContext], Json] | None = None
    """Called in the trial's process after training; what it returns is `Facts.survey[id]`."""
    survey_of_ranks: Callable[[Sequence[Trace], Sequence[Json]], Json] | None = None
    """Of several processes that trained together: from the trace of each and what its `survey` found, what stands
    in `Facts.survey[id]` of them all; by default what the first found."""
    reads: frozenset[str] = frozenset()
    """What the line to blame reads, as `repro_audit.storage.reads` calls it, where that is what the source is about."""
    lines: Callable[[Json], Iterable[tuple[str, int]]] = lambda _found: ()
    """From what the survey found: the lines that were seen to do what the source is about, file and number."""
    hidden_order: bool = False
    """What it decides is the order of objects that look alike, which no value shows."""
    internals: tuple[Internal, ...] = ()
    """What of PyTorch's it takes: where that lacks one, nothing is done at the import of torch, and nothing tried."""
    options: tuple[Option, ...] = ()
    """What a user may choose in `[tool.repro-audit.sources.ID]`; `option.of(facts)` is the choice."""

    @property
    def id(self) -> str:
        """The public id, such as `hash-seed`."""
        return self.name.rpartition(".")[2].replace("_", "-")

    @property
    def title(self) -> str:
        """The first sentence of the documentation, without its full stop."""
        return (self.doc or "").strip().split("\n", 1)[0].rstrip(".")


def configured(source: Source, chosen: Mapping[str, Json]) -> Source:
    """The source with what the user chose in the facts that its functions are given."""

    def told(facts: Facts) -> Facts:
        return replace(facts, options=dict(chosen))

    if not chosen:
        return source
    pinned_fix = source.pinned_fix
    places = source.places
    return replace(
        source,
        places=places and (lambda facts: places(told(facts))),
        levels=lambda facts: source.levels(told(facts)),
        judge=lambda judgement, facts: source.judge(judgement, told(facts)),
        fix=lambda facts: source.fix(told(facts)),
        pinned_fix=pinned_fix and (lambda facts: pinned_fix(told(facts))),
    )
