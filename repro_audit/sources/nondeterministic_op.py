"""An operation whose threads race gives other bits each time it runs.

## What it does
The audit runs the program with `torch.use_deterministic_algorithms(True)` (pinned; what has no deterministic
algorithm warns and goes on), then several times as written, beside a process that keeps a core busy. Runs that differ
from the deterministic ones, while those agree, convict it, and the report says how many of how many. A race can be
invited, not forced. Where runs with deterministic algorithms differ from each other, an operation that PyTorch warns
has none is suspected, by its name. *Same*: all runs gave the same; a race that none of them met is not ruled out.

## Why it breaks reproducibility
Sums of floating point numbers depend on the order of addition. Where several threads add into the same element, the
order is that of their arrival, and the bits change from run to run. On CUDA many operations do so with atomic
additions. On a CPU the gradient of `x[index]` does (`index_put_` that accumulates), once there is enough of it to be
split among threads: from 32,768 elements on.

## Example
A gather of many rows out of few, with gradients, on two threads or more. `build` seeds everything.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Molecule(nn.Module):
    def __init__(self):
        super().__init__()
        self.kinds = nn.Parameter(torch.randn(16, 16))

    def forward(self, atoms):
        # backward adds 65,536 rows a batch into 16
        return self.kinds[atoms].mean(1)


def build(seed):
    torch.manual_seed(seed)
    data = TensorDataset(
        torch.randint(16, (256, 2048)), torch.randn(256, 16)
    )
    return Molecule(), DataLoader(data, batch_size=32)
```

## Use instead
Deterministic algorithms; an operation that has none raises an error that names it. Here `nn.Embedding` would do too.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Molecule(nn.Module):
    def __init__(self):
        super().__init__()
        self.kinds = nn.Parameter(torch.randn(16, 16))

    def forward(self, atoms):
        # backward adds 65,536 rows a batch into 16
        return self.kinds[atoms].mean(1)


def build(seed):
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
    data = TensorDataset(
        torch.randint(16, (256, 2048)), torch.randn(256, 16)
    )
    return Molecule(), DataLoader(data, batch_size=32)
```

## References
- `torch.use_deterministic_algorithms`, with the operations concerned:
  <https://docs.pytorch.org/docs/stable/generated/torch.use_deterministic_algorithms.html>
- PyTorch: Reproducibility, avoiding nondeterministic algorithms:
  <https://docs.pytorch.org/docs/stable/notes/randomness.html#avoiding-nondeterministic-algorithms>
- The gradient of indexing is nondeterministic on a CPU: <https://github.com/pytorch/pytorch/issues/51366>
- Its deterministic form: <https://github.com/pytorch/pytorch/pull/51388>
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, FixCost, Levels, RunPin, Scope, Source, Verdict
from repro_audit.sources.emulation.alerts import Alert, listen
from repro_audit.sources.emulation.load import load
from repro_audit.storage.facts import Facts, Json

ID = "nondeterministic-op"
PINNED, RELEASED = "deterministic", "as written, under load"
UNLOADED = "as written"
"""Only to time a step beside the pinned level."""
SNIPPET = "import torch\n\ntorch.use_deterministic_algorithms(True)"


def levels(_facts: Facts) -> Levels:
    """The user's own setting, several times: a level can not force a race, only invite it."""
    return Levels(varied=(RELEASED,), race=True)


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Switch deterministic algorithms on, or release them with a busy process beside the trial."""
    lines = trial.unpinned[ID] = []
    if level == PINNED:
        heard: list[Json] = []
        trial.notes[ID] = heard

        def told(alert: Alert) -> None:
            if (found := asdict(alert)) not in heard:
                heard.append(found)
                lines.append(alert.line)

        with Replacements() as replacements:
            trial.when_imported("torch", partial(_pin, told, replacements))
            yield
        return
    if level == UNLOADED:
        yield
        return
    with load():
        yield


def _pin(told: Callable[[Alert], None], replacements: Replacements) -> None:
    """Deterministic algorithms with warnings only, against the program's own wish if need be; `told` of the warnings.

    They also fill the memory of `torch.empty`. That is another source's business, and a fix of the program's own where
    it asks for deterministic algorithms itself: then memory is filled, unless it says otherwise.
    """
    torch: Any = sys.modules["torch"]
    set_mode = torch.use_deterministic_algorithms
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    fill = _Fill(torch.utils.deterministic, replacements)
    replacements.callback(set_mode, enabled, warn_only=warn_only)
    set_mode(True, warn_only=True)
    listen(told, lambda: fill.mode, replacements)

    def pinned(mode: bool, *, warn_only: bool = False) -> Any:  # noqa: FBT001 - as torch has it
        set_mode(mode, warn_only=warn_only)  # which has the words for what may not be given
        fill.asked_for(mode=mode)
        return set_mode(True, warn_only=warn_only or not mode)

    replacements.attribute(torch, "use_deterministic_algorithms", pinned)


class _Fill:
    """`torch.utils.deterministic.fill_uninitialized_memory`, in force only while the program's own mode is on."""

    def __init__(self, module: Any, replacements: Replacements) -> None:
        self._set = partial(type(module).fill_uninitialized_memory.fset, module)
        self.mode = False
        self._wanted: bool = module.fill_uninitialized_memory
        shown = property(self._get, self._want)
        replacements.attribute(type(module), "fill_uninitialized_memory", shown)
        replacements.setting(self._set, self._wanted, new=False)

    def asked_for(self, *, mode: bool) -> None:
        """The program switches deterministic algorithms on or off."""
        self.mode = mode
        self._set(self.mode and self._wanted)

    def _get(self, _module: Any) -> bool:
        return self._wanted

    def _want(self, _module: Any, wanted: bool) -> None:  # noqa: FBT001 - a property's setter
        self._wanted = wanted
        self._set(self.mode and self._wanted)


def survey(trial: TrialContext) -> Json:
    """The operators that PyTorch warned of, where deterministic algorithms were on; None without."""
    return trial.notes.get(ID) or None


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Say how many of how many runs differed, and what has no deterministic form."""
    differed, total = judgement.race or (0, 0)
    return Verdict.of(
        judgement,
        held="the program's own algorithms give the same as the deterministic ones",
        broke=f"{differed} of {total} runs differ from the deterministic algorithms' result; those agree",
        evidence=tuple(map(_in_words, facts.survey.get(ID) or ())),
    )


def _in_words(heard: dict[str, Any]) -> str:
    where = f" ({heard['line']})" if heard["line"] else ""
    if heard["has_form"]:
        return f"{heard['operator']}{where} is deterministic only without warn_only"
    return f"PyTorch has no deterministic form of {heard['operator']}{where}"


def fix(facts: Facts) -> Fix:
    """Deterministic algorithms; for an operation that has none, another one."""
    heard = facts.survey.get(ID) or ()
    formless = [each["operator"] for each in heard if not each["has_form"]]
    if formless:
        names = " and ".join(dict.fromkeys(formless))
        instead = "on the CPU, or by another operation" if facts.cuda else "by another operation"
        return Fix(
            summary=f"Use deterministic algorithms, and compute without {names}: PyTorch has no deterministic form of "
            f"that, so compute it {instead}. While it is there, it raises an error unless warn_only is given.",
            snippet="import torch\n\ntorch.use_deterministic_algorithms(True, warn_only=True)  # warns of what has "
            "no deterministic form",
        )
    if heard:
        names = " and ".join(dict.fromkeys(each["operator"] for each in heard))
        return Fix(
            summary=f"Use deterministic algorithms without warn_only: with it {names} goes on as before.",
            snippet=SNIPPET,
        )
    return Fix(
        summary="Use deterministic algorithms; an operation that has none then raises an error that names it.",
        snippet=SNIPPET,
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    run_pin=RunPin(line="torch.use_deterministic_algorithms(True, warn_only=True)"),
    judge=judge,
    fix=fix,
    pinned_by_fix=True,
    survey=survey,
    fix_cost=FixCost(words="deterministic algorithms take", fixed=PINNED, without=UNLOADED),
)
