"""State that no checkpoint holds is lost when a training is resumed.

## What it does
The audit trains straight through (pinned), and in two processes: the first one saves where an epoch ends, the second
one builds everything anew, loads, and trains the remaining steps. Saved is what a careful program saves: everything
that has a `state_dict` (model, optimizer, scheduler, a loader that has one), every ambient generator, and the generator
that a DataLoader was given. A difference after that convicts it, and the report names what was not as before right
after loading. It breaks the promise `settings`. *Same*: both give the same. *Not tried* where `build()` returns a
procedure, which the audit can not stop and resume.

A script goes on from its own checkpoint: `--resume-args "--resume out/last.pt"` says with which arguments, and
`--resume-args ""` that it takes none, since it goes on by itself from what it finds. It is ended
right after it has written one (by `torch.save`, or into a file that those arguments name or that it opened), as near as
can be to half of the steps, and run again with them. From the next step on, all is compared with the straight run.

## Why it breaks reproducibility
A `state_dict` holds parameters and the buffers that were registered as persistent. A counter, a list, a running mean
kept as a plain attribute is not in it; neither is the state of a scheduler that was written by hand, of a generator
that the dataset owns, or the place of a loader that is read only once. The resumed training starts those anew and goes
on with the rest, so it is neither the old run nor a new one.

## Example
The model warms up by a counter of its own, which begins at 0 again.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * min(1.0, self.calls / 100)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    return Gated(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True
    )
```

## Use instead
A buffer, which is part of the `state_dict`.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 1)
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x):
        self.calls += 1
        return self.linear(x) * (self.calls / 100).clamp(max=1.0)


def build(seed):
    torch.manual_seed(seed)
    x = torch.randn(64, 8)
    return Gated(), DataLoader(
        TensorDataset(x, x.sum(1, keepdim=True)), batch_size=8, shuffle=True
    )
```

## References
- PyTorch: Saving and loading a general checkpoint:
  <https://docs.pytorch.org/tutorials/recipes/recipes/saving_and_loading_a_general_checkpoint.html>
- `torch.nn.Module.register_buffer`, persistent or not:
  <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.register_buffer>
- `torch.nn.Module.get_extra_state`, for what is no tensor:
  <https://docs.pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.get_extra_state>
- A loader that saves its place: <https://docs.pytorch.org/data/main/torchdata.stateful_dataloader.html>
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from repro_audit.analysis import resumption
from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.source import Fix, Levels, Place, Scope, Source, Verdict
from repro_audit.sources import _resumed_script
from repro_audit.storage.facts import Facts, Json

PINNED, RESUMED = "straight through", "resumed in a new process"
KINDS = {
    "attribute": "a plain attribute",
    "buffer": "a buffer that is not persistent",
    "generator": "a generator of the program's own",
    "position": "the loader's position",
    "scheduler": "a scheduler without a state_dict",
}
MOST_NAMED = 4

_ITSELF = "the program trains by itself, so the audit can not stop it half way and resume"


def levels(facts: Facts) -> Levels | str:
    """A checkpoint between two epochs, where the audit's own loop trains and comes to one; or a script's own."""
    found = facts.survey.get(SOURCE.id)
    if found is not None and found.get("script"):
        return _levels_of_script(facts, found)
    if found is None or found["procedure"]:
        return (
            f"{_ITSELF}; a script that trains in its own process can be resumed, with --resume-args"
        )
    if found["steps"] is None:
        return facts.seen("no epoch ended where a training could be resumed")
    return Levels(varied=(RESUMED,))


def _levels_of_script(facts: Facts, found: Json) -> Levels | str:
    """Tried alone: a second run in the same process, say, can not be resumed in a new one."""
    if found["arguments"] is None:
        return f"{_ITSELF}; say how it resumes: --resume-args '--resume out/last.pt'"
    if facts.cut is not None:
        return Levels(varied=(RESUMED,), alone=True)
    what = "no checkpoint was written"
    if found["written"]:
        what += " after the first step and before the last"
    return facts.seen(what) + ("" if facts.ended else "; --steps must reach beyond it")


def survey(trial: TrialContext) -> Json:
    """Where the training can be cut, and what was lost where it was, with lines below the tree relative to it."""
    found = trial.checkpoint.told()
    for origin in found["origins"].values():
        if origin["file"] and Path(origin["file"]).is_relative_to(trial.root):
            origin["file"] = str(Path(origin["file"]).relative_to(trial.root))
    return found


_UNSEEN = "otherwise; what was lost can not be seen from outside: the state of an iterator, a worker or a library"


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name what was lost."""
    found = facts.survey.get(SOURCE.id) or {}
    steps = facts.cut.steps if facts.cut else (facts.diverged or found).get("steps")
    after = f"resumed after step {steps} in a new process"
    held = f"{after}, the training goes on just the same"
    if facts.cut is not None:
        how = (
            _resumed_script.in_words(_lost_by_script(facts)) if judgement.status == "broke" else ""
        )
        how = f"without {how}" if how else _UNSEEN
        return Verdict.of(judgement, held=held, broke=f"{after}, the training goes on {how}")
    lost = _lost(facts)
    shown = [f"{name} ({KINDS[kind]})" for name, kind in lost[:MOST_NAMED]]
    more = f" and {len(lost) - MOST_NAMED} more" if len(lost) > MOST_NAMED else ""
    how = f"without {', '.join(shown)}{more}" if lost else _UNSEEN
    return Verdict.of(
        judgement,
        held=held,
        broke=f"{after}, the training goes on {how}",
    )


def _lost(facts: Facts) -> list[tuple[str, str]]:
    """What the resumed run found otherwise than it was saved."""
    return [(name, kind) for name, kind in (facts.diverged or {}).get("lost", ())]


def _lost_by_script(facts: Facts) -> _resumed_script.Lost:
    return _resumed_script.lost(facts.survey[SOURCE.id], facts.diverged)


def _origins(facts: Facts) -> dict[str, Json]:
    found: dict[str, Json] = (facts.diverged or {}).get("origins", {})
    return found


def places(facts: Facts) -> tuple[Place, ...]:
    """The lines where what was lost is set up."""
    if facts.cut is not None:
        return tuple(_resumed_script.places(_lost_by_script(facts), facts.diverged, facts.cut))
    origins = _origins(facts)
    return tuple(
        Place(
            what=f"{name}, {KINDS[kind]}, is not in the checkpoint",
            file=origin["file"],
            line=origin["line"],
            function=origin["function"],
            code=origin["code"],
        )
        for name, kind in _lost(facts)[:MOST_NAMED]
        if (origin := origins.get(name)) and origin["file"]
    )


def fix(facts: Facts) -> Fix:
    """Save and load what was lost."""
    if facts.cut is not None:
        return _resumed_script.fix(_lost_by_script(facts))
    lost, origins = _lost(facts), _origins(facts)
    kinds = {kind for _, kind in lost}
    summary = "Save what was lost beside the state_dicts, and put it back after loading."
    if kinds == {"buffer"}:
        summary = "Register the buffer as persistent, so that the state_dict holds it."
    elif kinds == {"position"}:
        summary = "Use a loader that saves its place, such as torchdata's StatefulDataLoader, or save it yourself."
    known = [(kind, origins[name]) for name, kind in lost if name in origins]
    parts = [
        *(_persistent(origin) for kind, origin in known if kind == "buffer"),
        *_extra_states([origin for kind, origin in known if _is_extra(kind, origin)]),
        *_beside([o for kind, o in known if kind != "buffer" and not _is_extra(kind, o)]),
    ]
    return Fix(summary=summary, snippet="\n\n".join(parts) or _GENERAL)


_GENERAL = """\
def get_extra_state(self):  # of the module: part of its state_dict
    return {"calls": self.calls}

def set_extra_state(self, state):
    self.calls = state["calls"]"""


def _is_extra(kind: str, origin: Json) -> bool:
    """Whether a module holds it, so that its state_dict can."""
    return kind == "attribute" and bool(origin["holder"]) and not origin["generator"]


def _persistent(origin: Json) -> str:
    """The user's own line, fixed where that takes no more than to leave a word out."""
    name, line = origin["attribute"] or origin["expression"], origin["code"]
    fixed = re.sub(r",\s*persistent\s*=\s*False", "", line)
    if fixed != line:
        return f"- {line}\n+ {fixed}"
    return f'self.register_buffer("{name}", ...)  # without persistent=False'


def _extra_states(origins: list[Json]) -> Iterator[str]:
    """The methods of each class by which its `state_dict` has more than parameters and buffers."""
    for holder in dict.fromkeys(origin["holder"] for origin in origins):
        names = [origin["attribute"] for origin in origins if origin["holder"] == holder]
        names = list(dict.fromkeys(names))
        saved = ", ".join(f'"{name}": self.{name}' for name in names)
        back = "\n".join(f'    self.{name} = state["{name}"]' for name in names)
        yield (
            f"def get_extra_state(self):  # of {holder}: part of its state_dict\n    return {{{saved}}}\n\n"
            f"def set_extra_state(self, state):\n{back}"
        )


_GENERATORS = {
    "torch": ("{0}.get_state()", '{0}.set_state(checkpoint["{1}"])'),
    "numpy": ("{0}.bit_generator.state", '{0}.bit_generator.state = checkpoint["{1}"]'),
    "numpy-legacy": ("{0}.get_state()", '{0}.set_state(checkpoint["{1}"])'),
    "python": ("{0}.getstate()", '{0}.setstate(checkpoint["{1}"])'),
}
"""By library, how the state of a generator is read and put back."""
_ANYTHING = ("copy.deepcopy({0})", '{0} = checkpoint["{1}"]')


def _beside(origins: list[Json]) -> Iterator[str]:
    """Lines that save, and lines that put back, what no `state_dict` can be made to hold."""
    named = [
        (expression, expression.replace('"', "'"), _GENERATORS.get(origin["generator"], _ANYTHING))
        for origin in origins[:MOST_NAMED]
        if (expression := origin["expression"]) != "loader"  # an iterator can not be copied
    ]
    if named:
        saved = [f'checkpoint["{key}"] = {save.format(name)}' for name, key, (save, _) in named]
        back = [load.format(name, key) for name, key, (_, load) in named]
        yield "\n".join((*saved, "# after loading:", *back))


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.SETTINGS,
    pinned=PINNED,
    levels=levels,
    judge=judge,
    fix=fix,
    survey=survey,
    places=places,
    survey_of_pair=resumption.lost,
    names_cause=True,
    resumed=RESUMED,
)
