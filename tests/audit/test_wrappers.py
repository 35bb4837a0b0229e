"""What the audit puts in the place of a public function takes all that the function takes, and refuses what it does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.auditing import REPOSITORY, environment
from tests.forms import FORMS
from tests.wrappers import Replaced

if TYPE_CHECKING:
    from pathlib import Path

SURELY = {
    "clock": "time.time",
    "file-order": "os.listdir",
    "lstm-dropout": "torch.nn.modules.rnn.LSTM.forward",
    "numpy-rng": "numpy.random.seed",
    "os-entropy": "torch.Generator.seed",
    "object-address": "torch.nn.modules.module.Module.__hash__",
    "probe": "torch.autograd.backward",
    "detailed probe": "torch.utils.data.dataloader.DataLoader.__init__",
    "overlay": "os.rename",
}
"""Some of what must be found."""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Replaced]:
    """In an interpreter of its own, which forks for every setting."""
    directory: Path = tmp_path_factory.mktemp("settings")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.wrappers", str(directory)],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return {name: Replaced(**words) for name, words in json.loads(ended.stdout).items()}


def test_every_setting_was_looked_at(found: dict[str, Replaced]) -> None:
    failed = {name: each.ended[""] for name, each in found.items() if "" in each.ended}
    assert failed == {}
    for start, function in SURELY.items():
        settings = [words for name, words in found.items() if name and name.startswith(start)]
        assert any(function in each.functions for each in settings), function


def test_the_forms_of_all_that_is_replaced_are_written_down(found: dict[str, Replaced]) -> None:
    replaced = {function for each in found.values() for function in each.functions}
    assert sorted(replaced - set(FORMS)) == []


def test_calls_of_every_form_end_as_they_do_without_the_audit(found: dict[str, Replaced]) -> None:
    plainly = found[""].ended
    wrong = [
        f"{setting}: {function}, {form}: {plainly[function][form]}, but {ended}"
        for setting, each in found.items()
        for function, forms in each.ended.items()
        for form, ended in forms.items()
        if ended != plainly[function][form]
    ]
    assert wrong == []


def test_keywords_of_every_function_are_taken(found: dict[str, Replaced]) -> None:
    refused = [
        f"{setting}: {function}: {', '.join(names)}"
        for setting, each in found.items()
        for function, names in each.functions.items()
        if names
    ]
    assert refused == []
