"""Runs a trial's command in the trial's process, until what it trains has made its steps or it ends by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from repro_audit.errors import InternalError
from repro_audit.isolation.processes import STACKS_SIGNAL, become_subreaper, kill_descendants, leave
from repro_audit.trial.child import prepare
from repro_audit.trial.launched import hook
from repro_audit.trial.launched.gathering import Gathered, gather
from repro_audit.trial.launched.traced import (
    DEVICE,
    PEERS_SECONDS,
    POLL_SECONDS,
    PROCESSES,
    device_of,
    host,
)
from repro_audit.trial.request import FACTS, TERMINATE_SECONDS

if TYPE_CHECKING:
    from types import FrameType

    from repro_audit.trial.request import TrialRequest

GRACE_SECONDS = 1.0
"""How long a command may take to end by itself once all that it trains is over."""


def run_command(request: TrialRequest) -> int:
    """Run a trial of a command, in the tree that it was given, and leave what `child.run_trial` does.

    Returns:
        The exit status of the process: 0, or 1 where the target failed.
    """
    prepare(request)
    (request.directory / PROCESSES).mkdir()
    (request.directory / DEVICE).write_text(device_of(request.tree), encoding="ascii")
    place = hook.write(request.directory, request.bystanders)
    become_subreaper()
    command = subprocess.Popen(
        request.target.launched,
        stdin=subprocess.DEVNULL,
        env=hook.variables(place, os.environ),
    )
    _forward_stacks_signal(request)
    if request.on_several:
        signal.signal(signal.SIGTERM, lambda *_: _give_up(command, request))
    try:
        gathered = _wait(command, request)
    finally:
        if request.on_several:
            _terminate(command, request)
        left = kill_descendants()
    if left:
        raise InternalError(
            "Processes of the command can not be ended.", where=" ".join(map(str, left))
        )
    facts = gather(request, gathered, command.returncode)
    facts.save(request.directory / FACTS)
    return 1 if facts.failure else 0


def _terminate(command: subprocess.Popen[bytes], request: TrialRequest) -> None:
    """End a command in time for it to end what it started on other machines, which it could not if it were killed."""
    (request.directory / DEVICE).unlink(missing_ok=True)
    command.terminate()
    with suppress(subprocess.TimeoutExpired):
        command.wait(timeout=TERMINATE_SECONDS)


def _give_up(command: subprocess.Popen[bytes], request: TrialRequest) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
    _terminate(command, request)
    leave(1)


def _wait(command: subprocess.Popen[bytes], request: TrialRequest) -> Gathered:
    """Wait for the command's end, or for that of all training in it and a little longer."""
    over: float | None = None
    known = 0
    while True:
        ended = command.poll() is not None
        now = time.monotonic()
        # Only facts complete it, so there is no need to read all again before there are more of them.
        saved = len([*(request.directory / PROCESSES).glob(f"*/{FACTS}")])
        if over is None and saved > known:
            known = saved
            over = now if Gathered.of(request.directory).is_complete else None
        if ended or (over is not None and now - over > GRACE_SECONDS + PEERS_SECONDS):
            # What a process leaves as it ends may have come in between.
            return Gathered.of(request.directory)
        time.sleep(POLL_SECONDS)


def _forward_stacks_signal(request: TrialRequest) -> None:
    """Have the processes that train write their stacks where the trial runs out of time."""

    def forward(_number: int, _frame: FrameType | None) -> None:
        here = host()
        for process in Gathered.of(request.directory).processes:
            if process.about.host != here:
                continue
            with suppress(ProcessLookupError):
                os.kill(process.about.pid, STACKS_SIGNAL)

    signal.signal(STACKS_SIGNAL, forward)
