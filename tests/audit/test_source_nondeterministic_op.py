"""What PyTorch warns of is heard, whatever a program does with its warnings."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from repro_audit.sources import nondeterministic_op as source
from repro_audit.storage.facts import Facts
from tests.auditing import environment

HEARD = """
    import warnings
    from repro_audit.replacements import Replacements
    from repro_audit.sources.emulation import alerts

    heard, own = [], False
    alerts.listen(lambda alert: heard.append(alert.operator), lambda: own, Replacements())

    import torch
    from torch._prims_common import alert_not_deterministic as alert

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True, warn_only=True)
    warnings.simplefilter("ignore")
    alert("first")
    warnings.simplefilter("error")
    alert("second")
    with warnings.catch_warnings(record=True) as record:
        warnings.resetwarnings()
        warnings.filterwarnings("error", message=".*deterministic")
        alert("third")
        warnings.simplefilter("always")
        torch.zeros(4).put_(torch.tensor([1]), torch.tensor([1.0]))
        warnings.warn("another")
        own = True
        alert("fourth")
    own = False
    warnings.warn("Flash Attention defaults to a non-deterministic algorithm. To explicitly enable")
    torch.set_num_threads(1)
    alert("alone")
    print(heard, [str(each.message).split()[0] for each in record])
"""


def test_warnings_are_heard_before_the_programs_filters() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEARD)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    heard = ["first", "second", "third", "fourth", "Flash Attention"]
    assert ended.stdout.strip() == f"{heard} ['another', 'fourth']"


def alert(*, has_form: bool) -> dict[str, object]:
    return {"operator": "ctc_loss_backward_gpu", "line": "train.py:9", "has_form": has_form}


def test_the_fix_says_what_has_no_deterministic_form() -> None:
    facts = Facts(cuda="a card", survey={source.ID: [alert(has_form=False)]})
    found = source.fix(facts)
    assert "no deterministic form" in found.summary
    assert "ctc_loss_backward_gpu" in found.summary
    assert "on the CPU" in found.summary
    found = source.fix(Facts(survey={source.ID: [alert(has_form=True)]}))
    assert "without warn_only" in found.summary
    assert "warn_only" not in found.snippet
