"""`Source.apply` undoes itself: names, flags and settings are after a trial what they were before."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from repro_audit.sources import built_in
from tests.auditing import REPOSITORY, environment


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By source and level, what is not as before; in an interpreter of its own, which forks for every level."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.undone", str(tmp_path_factory.mktemp("levels"))],
        cwd=REPOSITORY,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def test_no_level_of_any_source_leaves_anything_behind(left: dict[str, list[str]]) -> None:
    assert {name.partition(":")[0] for name in left} == {*built_in(), "leaky"}
    assert {name: found for name, found in left.items() if found and name != "leaky: pinned"} == {}


def test_what_a_source_leaves_behind_is_found(left: dict[str, list[str]]) -> None:
    assert {
        "torch.manual_seed",
        "os.getlogin",
        "torch.utils.data.dataloader.DataLoader.__iter__",
        "torch.backends.cudnn",
        "os.environ",
        "umask",
    } <= {*left["leaky: pinned"]}
