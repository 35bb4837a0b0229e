"""What crosses the border between processes comes out as it went in."""

from __future__ import annotations

from pathlib import Path

import pytest

from repro_audit.isolation.tree import Mechanism, Part, Tree
from repro_audit.storage.border import append, dumps, entries, loads
from repro_audit.storage.facts import Facts, Failure
from repro_audit.target import Target
from repro_audit.trial.request import TrialRequest, Watch, Window

TREE = Tree(
    kind="overlay",
    root=Path("/home/me"),
    cwd=Path("/home/me/project"),
    parts=(Part(place=Path(), upper=Path("/u"), work=Path("/w"), lowers=(Path("/a"), Path("/b"))),),
    mechanism=Mechanism(user_namespace=True, options="index=off"),
)


def test_a_request(tmp_path: Path) -> None:
    request = TrialRequest(
        directory=tmp_path,
        target=Target(spec="train.py", path="train.py", argv=("--lr", "0.1")),
        tree=TREE,
        seed=1,
        steps=8,
        setting={"clock": "noon today"},
        watch=Watch(capture=((2, 1, "loss", 0),), window=Window(first=0, last=2)),
        first_run_wrote=("cache.pt",),
        unpinned={"thread-timing": ["train.py:3"]},
        temporary=(tmp_path,),
        first_tree=TREE,
        compiled=tmp_path,
    )
    request.save()
    assert TrialRequest.load(tmp_path) == request


def test_facts(tmp_path: Path) -> None:
    facts = Facts(
        losses=(float("inf"), 0.5),
        finite=(True, None),
        loaders=({"num_workers": 2},),
        survey={"clock": [["train.py", 3]]},
        failure=Failure(what="it crashed"),
    )
    facts.save(tmp_path / "facts.json")
    assert Facts.load(tmp_path / "facts.json") == facts
    assert loads(Facts, dumps(Facts())) == Facts()


def test_what_is_no_plain_data_is_refused() -> None:
    with pytest.raises(TypeError, match="no plain data"):
        dumps(Facts(survey={"clock": object()}))


def test_a_log_is_read_by_type_and_without_torn_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert list(entries(log, Mechanism)) == []
    append(log, TREE.mechanism)
    append(log, ["train.py", 3])
    with log.open("a") as file:
        file.write('{"options": ""}\n{"user_na')
    assert list(entries(log, Mechanism)) == [TREE.mechanism]
    assert list(entries(log, list)) == [["train.py", 3]]
