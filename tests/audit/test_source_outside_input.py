"""`outside-input`: what is told again and what is not, and what an audit says of what can't be."""

from __future__ import annotations

import itertools
import os
import shutil
import socketserver
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from repro_audit.source import Levels
from repro_audit.sources.emulation.outside import changed, keep, read_answers
from repro_audit.sources.outside_input import ANEW, PINNED, SOURCE
from repro_audit.storage.facts import Facts
from tests.auditing import check, write_target
from tests.sourcing import context, in_force

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("shared_interpreters")


def read_from_pipe(file: Path) -> Any:
    with subprocess.Popen(["/bin/cat", file], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        return [process.stdout.readline(), process.stdout.read(), process.wait()]


def read_from_popen(file: Path) -> str:
    with os.popen(f"cat {file}") as output:  # noqa: S605 - as programs do
        return output.read()


def read_from_file(file: Path) -> bytes:
    with open(file, "rb") as opened:  # noqa: PTH123 - as programs do
        return opened.read()


def captured(file: Path) -> str:
    return subprocess.run(["/bin/cat", file], capture_output=True, text=True, check=True).stdout


ASKS: dict[str, Callable[[Path], Any]] = {
    "run": captured,
    "check_output": lambda file: subprocess.check_output(["/bin/cat", file]),
    "getoutput": lambda file: subprocess.getoutput(f"cat {file}"),  # noqa: S605
    "popen": read_from_popen,
    "pipe": read_from_pipe,
    "open": read_from_file,
    "read_text": lambda file: file.read_text(),
}


def asked(ask: Callable[[Path], Any], file: Path, directory: Path, level: str) -> tuple[Any, Any]:
    """What is told in a trial, and what it surveys."""
    (directory / "tree").mkdir(parents=True)
    trial = context(directory, SOURCE, level)
    trial.root = directory / "tree"
    with in_force(SOURCE, level, trial):
        return ask(file), SOURCE.survey(trial) if SOURCE.survey else None


@pytest.mark.parametrize("name", ASKS)
@pytest.mark.parametrize("after", ["short\n", "", "one that is longer\nby a line\n"])
def test_what_changes_between_two_runs_is_told_again(name: str, after: str, tmp_path: Path) -> None:
    ask, file = ASKS[name], tmp_path / "file.txt"
    file.write_text("the first\none\n")
    first, ours = asked(ask, file, tmp_path / "trials" / "a", PINNED)
    assert first == ask(file)
    file.write_text(after)
    second, theirs = asked(ask, file, tmp_path / "trials" / "b", PINNED)
    assert second == ask(file)
    found = changed(ours["told"], theirs["told"])
    assert [entry["whole"] for entry in found] == [True]
    keep(tmp_path / "trials" / "a", [entry["name"] for entry in found])
    assert asked(ask, file, tmp_path / "trials" / "c", PINNED)[0] == first
    anew, survey = asked(ask, file, tmp_path / "trials" / "d", ANEW)
    assert anew == second
    assert SOURCE.lines(survey)


def test_what_the_run_itself_wrote_is_not_from_outside(tmp_path: Path) -> None:
    def ask(file: Path) -> str:
        file.write_text("own")
        return file.read_text()

    _, survey = asked(ask, tmp_path / "file.txt", tmp_path / "trials" / "a", PINNED)
    assert survey["told"] == []


def test_measures_keep_their_kind(tmp_path: Path) -> None:
    def ask(file: Path) -> Any:
        return os.getloadavg(), os.times(), shutil.disk_usage(file), os.statvfs(file)

    (tmp_path / "file.txt").touch()
    first, ours = asked(ask, tmp_path / "file.txt", tmp_path / "trials" / "a", PINNED)
    keep(tmp_path / "trials" / "a", [entry["name"] for entry in ours["told"]])
    again, _ = asked(ask, tmp_path / "file.txt", tmp_path / "trials" / "b", PINNED)
    assert again == first
    assert list(map(type, again)) == list(map(type, first))


def test_nothing_is_kept_of_a_long_answer_but_whether_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "file.txt"
    told = []
    for number in range(2):
        file.write_text(str(number) * (2 << 20))
        told.append(asked(ASKS["popen"], file, tmp_path / "trials" / str(number), PINNED)[1])
    (entry,) = changed(told[0]["told"], told[1]["told"])
    assert not entry["whole"]


def test_what_did_not_change_is_not_looked_at_again(tmp_path: Path) -> None:
    steady, moving = tmp_path / "steady.txt", tmp_path / "moving.txt"
    steady.write_text("always")

    def read(name: str) -> tuple[Any, Any]:
        moving.write_text(name)
        answers, found = asked(
            lambda _: (steady.read_text(), moving.read_text()), steady, tmp_path / name, PINNED
        )
        return answers, found["told"]

    (_, ours), (_, theirs) = read("trials/a"), read("trials/b")
    keep(tmp_path / "trials" / "a", [entry["name"] for entry in changed(ours, theirs)])
    answers, told = read("trials/c")
    assert answers == ("always", "trials/a")
    assert (len(ours), len(theirs), len(told)) == (2, 2, 1)


def test_no_more_than_so_much_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repro_audit.sources.emulation.outside.MOST_KEPT", 8)
    file = tmp_path / "file.txt"
    file.write_text("sixteen letters.")
    _, found = asked(ASKS["open"], file, tmp_path / "trials" / "a", PINNED)
    assert [entry["whole"] for entry in found["told"]] == [False]


def test_it_applies_where_something_changed() -> None:
    entry = {"name": "a", "place": ["train.py", 7], "what": "runs `date`", "whole": True}
    survey: dict[str, Any] = {"told": [entry]}
    assert "not seen" in str(SOURCE.levels(Facts(survey={SOURCE.id: {"told": []}})))
    assert "the same in two runs" in str(SOURCE.levels(Facts(survey={SOURCE.id: survey})))
    answer = SOURCE.levels(Facts(survey={SOURCE.id: {**survey, "changed": [entry]}}))
    assert isinstance(answer, Levels)
    assert answer.varied == (ANEW,)
    assert read_answers(Path("no/such/trial")) == []


def test_what_a_connection_brings_is_suspected(tmp_path: Path) -> None:
    numbers = itertools.count(1)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(f"{next(numbers)}\n".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        body = f"""
            import socket
            import torch
            from torch import nn
            from torch.utils.data import DataLoader, TensorDataset

            def build(seed=0):
                torch.manual_seed(seed)
                with socket.create_connection(("127.0.0.1", {server.server_address[1]})) as peer:
                    number = int(peer.makefile().readline())
                x = torch.arange(64.0).view(-1, 1) / 64 + number / 100
                return nn.Linear(1, 1), DataLoader(TensorDataset(x, 2 * x), batch_size=8)
        """
        target = write_target(tmp_path, body)
        options = ("--only", "outside-input,hash-seed", "--no-pinpoint")
        audited = check(
            "train.py:build", *options, cwd=target.parent, saved=tmp_path / "report.json"
        )
        server.shutdown()
    assert audited.exit_code == 1
    assert audited.broke == {SOURCE.id}
    found = audited.source(SOURCE.id)
    assert found["confidence"] == "suspected"
    assert "train.py:10 receives data from 127.0.0.1" in " ".join(audited.terminal.split())
    assert audited.report["unexplained"] is None
