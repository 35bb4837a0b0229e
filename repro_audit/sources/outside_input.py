"""What the program is told from outside decides the result.

## What it does
The audit watches what the program, or a library that it calls, is told from outside: the output of commands
(`subprocess`, `os.popen`), files outside the program's tree (also `/proc` and `/sys`) that it did not write, what it
receives over connections (`socket`, and what is made of it), and what it measures of the machine (`os.getloadavg`,
`shutil.disk_usage`, `psutil.cpu_percent` and the like). Where two runs with everything pinned were told different
things, later runs are told again what the first one was told (pinned); runs that are told what comes (anew) convict it
where they give another result. Commands run in either case. What came over a connection, or is longer than 1 MiB, can
not be told again: where pinned runs differ, it is suspected. *Same*: what changes from run to run changes nothing. *Not
tried*: nothing from outside was seen to change within the audit; a day later it may have. Not seen is what C code
asks for by itself.

## Why it breaks reproducibility
Nothing outside the program is fixed by its seeds. A service gives other rows tomorrow, a shared file is replaced, a
command prints the time, the number of free bytes, or whatever is the newest. Each is an input of the training that no
version control holds.

## Example
The number of the run is what a command says.

```python
import subprocess

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    number = int(subprocess.check_output(["date", "+%N"]))
    x = torch.arange(64.0).view(-1, 1) / 64 + number / 1e9
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## Use instead
Take it from the caller.

```python
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def build(seed):
    torch.manual_seed(seed)
    x = torch.arange(64.0).view(-1, 1) / 64 + seed / 1e9
    return nn.Linear(1, 1), DataLoader(
        TensorDataset(x, x.square()), batch_size=8
    )
```

## References
- Python: `subprocess`: <https://docs.python.org/3/library/subprocess.html>
- Linux: proc(5): <https://man7.org/linux/man-pages/man5/proc.5.html>
- Reproducible Builds: volatile inputs: <https://reproducible-builds.org/docs/volatile-inputs/>
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repro_audit import notebook
from repro_audit.context import TrialContext
from repro_audit.experiment import Judgement
from repro_audit.replacements import Replacements
from repro_audit.source import Fix, Levels, Scope, SecondFloor, Source, Verdict
from repro_audit.sources.emulation.outside import Answers, changed, keep, read_answers
from repro_audit.sources.emulation.telling import Commands, Connections, Files, Measures
from repro_audit.storage.facts import Facts, Json

ID = "outside-input"
PINNED, ANEW = "as the first run was told", "anew"
MOST_SHOWN = 8


def compared(floor: Facts, again: Facts, directory: Path) -> Json:
    """The floor's survey, with what a second run with everything pinned was told otherwise; that is kept for others."""
    ours, theirs = (facts.survey.get(ID) or {} for facts in (floor, again))
    found = changed(ours.get("told"), theirs.get("told"))
    keep(directory, [entry["name"] for entry in found])
    return {**ours, "changed": found}


def was_told(facts: Facts) -> bool:
    """Whether the program was told anything from outside."""
    return bool((facts.survey.get(ID) or {}).get("told"))


def levels(facts: Facts) -> Levels | str:
    """Told anew, where that is something else."""
    survey = facts.survey.get(ID) or {}
    if not survey.get("told"):
        return facts.seen(
            "the program was not seen to read a command's output, a connection or a file outside its tree"
        )
    found = survey.get("changed") or ()
    if not found:
        return facts.seen("all that the program was told from outside was the same in two runs")
    can_be_pinned = any(entry["whole"] for entry in found)
    return Levels(varied=(ANEW,) if can_be_pinned else (), race=can_be_pinned, forced=can_be_pinned)


def loose(survey: Json) -> bool:
    """Whether something that changes can not be told again."""
    return any(not entry["whole"] for entry in (survey or {}).get("changed") or ())


@contextmanager
def apply(level: str, trial: TrialContext) -> Iterator[None]:
    """Watch, and where the level says so tell again what was kept."""
    answers = Answers(trial, again=level == PINNED)
    trial.on_run.append(answers.restart)
    trial.checkpoint.emulated[ID] = (answers.seen, answers.go_on)
    with Replacements() as replacements:
        Commands(answers, replacements)
        Files(answers, trial, replacements)
        Measures(answers, trial, replacements)
        trial.notes[ID] = Connections(answers, trial, replacements)
        yield


def survey(trial: TrialContext) -> Json:
    """What the program was told, line by line."""
    trial.notes[ID].end()  # what came over a connection is known only when somebody asks
    return {"told": read_answers(trial.directory)}


def judge(judgement: Judgement, facts: Facts) -> Verdict:
    """Name the lines that were told other things, and what they ask."""
    found = (facts.survey.get(ID) or {}).get("changed") or []
    asked = dict.fromkeys(f"{_place(entry)} {entry['what']}" for entry in found)
    return Verdict.of(
        judgement,
        held=f"what the program is told from outside changes from run to run, and changes nothing: {_listed(asked)}",
        broke="the result depends on what the program is told from outside, which is something else in each run: "
        f"{_listed(asked)}",
        evidence=tuple(f"{each}, with another answer in the next run" for each in asked)[
            :MOST_SHOWN
        ],
    )


def _place(entry: dict[str, Any]) -> str:
    file, line = entry["place"]
    return notebook.place(file, line)


def _listed(asked: dict[str, None]) -> str:
    first, *more = asked or [""]
    return f"{first}, and {len(more)} more" if more else first


def fix(_facts: Facts) -> Fix:
    """Make it an input that stays."""
    return Fix(
        summary="Ask outside once, keep the answer with the data, and let each training read what was kept; or take "
        "it from the caller.",
        snippet='path = Path("data/answer.json")  # under version control\n'
        "if not path.exists():\n"
        "    path.write_text(json.dumps(ask()))\n"
        "answer = json.loads(path.read_text())",
    )


def lines(found: Json) -> tuple[tuple[str, int], ...]:
    """In a trial: the lines that were told something else than what is kept."""
    told = (found or {}).get("told") or ()
    return tuple(
        dict.fromkeys((entry["place"][0], entry["place"][1]) for entry in told if entry["other"])
    )


SOURCE = Source(
    name=__name__,
    doc=__doc__,
    scope=Scope.RERUN,
    pinned=PINNED,
    levels=levels,
    apply=apply,
    judge=judge,
    lines=lines,
    fix=fix,
    survey=survey,
    second_floor=SecondFloor(wanted=was_told, compare=compared, is_loose=loose),
)
