"""What a resumed script lost, in words, lines and a fix."""

from __future__ import annotations

from typing import Any

import pytest

from repro_audit.sources import _resumed_script
from repro_audit.storage.facts import Cut

CUT = Cut(steps=3, likeness=1, writes=1, file="train.py", line=9, code="torch.save(all, path)")
RATE = "SGD.lr: 0.1 instead of 0.05 in step 3"


def found(
    *lost: tuple[str, str], phase: str, generators: tuple[str, ...] = (), samples: bool = False
) -> _resumed_script.Lost:
    """What was lost, where PyTorch's generator was not put back, and Python's was."""
    pair = {
        "lost": [*map(list, lost)],
        "phase": phase,
        "other_samples": samples,
        "generators": generators,
    }
    return _resumed_script.lost(pair, {"generators": ["rng.torch", "rng.cuda:0", "rng.cuda:1"]})


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (found((RATE, "setting"), phase="optimizer"), f"the scheduler's state ({RATE})"),
        # An optimizer that was made anew has the rate that it was made with.
        (
            found(("state.w.step", "state"), (RATE, "setting"), phase="optimizer"),
            f"the optimizer's state (w.step) and the optimizer's settings ({RATE})",
        ),
        (
            found(phase="data", generators=("rng.python", "rng.torch"), samples=True),
            "the states of the generators (PyTorch)",
        ),
        (
            found(phase="forward", generators=("rng.cuda:0", "rng.cuda:1")),
            "the states of the generators (CUDA)",
        ),
        (found(phase="data", samples=True), "the loader's position (other samples come next)"),
        (
            found(phase="data"),
            "the state of the dataset (the same samples come with other contents)",
        ),
        # Python's generator was put back, and differs for what the loader has drawn.
        (
            found(phase="data", generators=("rng.python",), samples=True),
            "the loader's position (other samples come next)",
        ),
        # Parameters are enough of a reason for another output; generators need not have any part in it.
        (
            found(("param.w", "parameter"), phase="forward", generators=("rng.torch",)),
            "the model's parameters (w)",
        ),
        (
            found(*((f"buffer.{name}", "buffer") for name in "abcd"), phase="forward"),
            "the model's buffers (a, b and 2 more)",
        ),
        # What no draw has reached differs for another reason.
        (found(phase="optimizer", generators=("rng.torch",)), ""),
    ],
)
def test_in_words(lost: _resumed_script.Lost, words: str) -> None:
    assert _resumed_script.in_words(lost) == words


def places(lost: _resumed_script.Lost, cut: Cut = CUT, **lines: int) -> list[tuple[int, str]]:
    origins: dict[str, dict[str, Any]] = {
        name: {"file": "train.py", "line": line, "function": None, "code": ""}
        for name, line in lines.items()
    }
    resumed = {"origins": origins}
    return [(each.line, each.what) for each in _resumed_script.places(lost, resumed, cut)]


def test_the_line_of_what_the_runs_part_by_comes_first() -> None:
    lost = found(("state.w.step", "state"), phase="data", generators=("rng.torch",))
    saves, makes = places(lost, optimizer=4, scheduler=5)
    assert saves[0] == 9
    assert "lacks the states of the generators and the optimizer's state, or" in saves[1]
    assert makes == (4, "the resumed training begins here without the optimizer's state")


def test_a_line_that_nobody_knows_is_left_out() -> None:
    assert places([("setting", [RATE])], Cut(**{**as_words(CUT), "file": ""})) == []
    assert [line for line, _ in places([])] == [9]


def as_words(cut: Cut) -> dict[str, Any]:
    return {name: getattr(cut, name) for name in Cut.__slots__}


def test_the_fix_saves_and_puts_back_what_was_lost() -> None:
    lost = found(
        ("buffer.b", "buffer"), (RATE, "setting"), phase="data", generators=("rng.cuda:0",)
    )
    assert _resumed_script.fix(lost).snippet.splitlines() == [
        'checkpoint["model"] = model.state_dict()',
        'checkpoint["scheduler"] = scheduler.state_dict()',
        'checkpoint["cuda"] = torch.cuda.get_rng_state_all()',
        "# after loading:",
        'model.load_state_dict(checkpoint["model"])',
        'scheduler.load_state_dict(checkpoint["scheduler"])',
        'torch.cuda.set_rng_state_all(checkpoint["cuda"])',
    ]
    assert "StatefulDataLoader" in _resumed_script.fix(found(phase="data", samples=True)).summary
    assert "whatever else changes" in _resumed_script.fix([]).snippet
