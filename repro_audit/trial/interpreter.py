"""The program of a trial interpreter: it runs one trial in itself, or stays a zygote that forks one child a trial.

Started by `repro_audit.trial.runner` with one end of a socket pair. The parent writes a JSON line a command, either
`{"do": "run" | "fork", "directory": ...}` with two file descriptors (stdout, stderr) attached, or
`{"do": "preload", "modules": [...]}`. The answers are JSON lines: `ready`, `forked`, `ended`.

A zygote imports and never runs a kernel: ATen, oneDNN and MKL read their environment at the first kernel, which is the
child's. OpenBLAS threads that `import numpy` leaves behind stop at fork by its own handlers.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from repro_audit import torch_internals
from repro_audit.errors import InternalError
from repro_audit.isolation.processes import die_with_parent, leave, no_core_dumps
from repro_audit.isolation.room import no_room, to_json
from repro_audit.isolation.sandbox import enter
from repro_audit.probe import files
from repro_audit.sources import built_in
from repro_audit.trial.request import DEFECT, FACTS, TEMPORARY, TrialRequest

NVML_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
"""With it, `torch.cuda.is_available()` asks the driver's management library, which leaves nothing behind."""

LEAST_CAPABLE = ("DEFAULT", "NO AVX")
"""What ATen says where it is told to take no CPU's own kernels."""

PRELOADED = (
    "numpy",
    "torch",
    "torch._dynamo",  # comes with the first step of an optimizer
    "multiprocessing.popen_fork",  # come with a loader's workers
    "multiprocessing.queues",
    "repro_audit.trial.child",
    "repro_audit.trial.fingerprint",
    "repro_audit.trial.driver.training",
    "repro_audit.trial.driver.loading",
    "repro_audit.trial.driver.loop",
    "repro_audit.trial.driver.notes",
    "repro_audit.trial.driver.origins",
    "repro_audit.trial.driver.own_checkpoint",
    "repro_audit.trial.driver.state",
    "repro_audit.probe.saves",
    "repro_audit.probe.digest.capture",
    "repro_audit.probe.steps.hooks",
    "repro_audit.probe.detail.session",
    "repro_audit.probe.detail.ops",
    "repro_audit.storage.values",
)
"""What trials import sooner or later, the sources apart; a zygote has it before its first child."""


def main(descriptor: int) -> NoReturn:
    """Serve the parent until it hangs up or asks for a trial in this very process."""
    no_core_dumps()
    control = socket.socket(fileno=descriptor)
    Server(control).serve()
    os._exit(0)


class Server:
    """Reads commands, forks children, and reports their ends."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.pending = b""
        self.descriptors: list[int] = []
        self.children: dict[int, str] = {}

    def serve(self) -> None:
        """Loop over commands and ends of children until the parent hangs up."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        os.set_blocking(reader, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.control, selectors.EVENT_READ)
            selector.register(reader, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is not self.control:
                        with suppress(BlockingIOError):
                            os.read(reader, 4096)
                        self.reap()
                    elif not self.receive():
                        return

    def receive(self) -> bool:
        """Take what the parent sent; False once it has hung up."""
        data, descriptors, _, _ = socket.recv_fds(self.control, 65536, 16)
        self.descriptors += descriptors
        self.pending += data
        *lines, self.pending = self.pending.split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return bool(data)

    def obey(self, command: dict[str, Any]) -> None:
        """Do one command."""
        match command["do"]:
            case "preload":
                preload(command["modules"])
                self.answer(event="ready", ran_kernels=has_run_kernels())
            case "fork":
                self.fork(Path(command["directory"]))
            case "run":
                self.run(Path(command["directory"]))

    def fork(self, directory: Path) -> None:
        """Run a trial in a child."""
        output = [self.descriptors.pop(0), self.descriptors.pop(0)]
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the only ones here are OpenBLAS's, which has fork handlers.
            warnings.simplefilter("ignore", DeprecationWarning)
            zygote = os.getpid()
            child = os.fork()
        if child == 0:
            die_with_parent(zygote)
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.trial(directory, output)
        for descriptor in output:
            os.close(descriptor)
        self.children[child] = str(directory)
        self.answer(event="forked", pid=child, directory=str(directory))

    def run(self, directory: Path) -> NoReturn:
        """Run a trial in this process, the freshest that there is."""
        output = [self.descriptors.pop(0), self.descriptors.pop(0)]
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.trial(directory, output)

    def trial(self, directory: Path, output: list[int]) -> NoReturn:
        """Become the trial: its output to the given descriptors, nothing of ours left open."""
        self.control.close()
        for number, descriptor in enumerate(output, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
        status = InternalError.exit_code
        try:
            status = run(TrialRequest.load(directory))
        except (
            BaseException
        ) as error:  # the target's own errors end in the facts: this is one of ours
            _tell_defect(error, directory)
        finally:
            leave(status)

    def reap(self) -> None:
        """Report the children that ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            directory = self.children.pop(pid, None)
            if directory is not None:
                self.answer(
                    event="ended", directory=directory, code=os.waitstatus_to_exitcode(status)
                )

    def answer(self, **fields: object) -> None:
        """Send one JSON line; a parent that is gone ends this process too."""
        try:
            self.control.sendall(json.dumps(fields).encode() + b"\n")
        except OSError:
            os._exit(0)


def run(request: TrialRequest) -> int:
    """Run a trial in this process; its first half, where it has one, before that in a process of its own."""
    if request.half == "second":
        status = first_half(request)
        if status:
            with suppress(FileNotFoundError):  # it died without a word
                (request.first_half / FACTS).replace(request.directory / FACTS)
            return status
    # First of all: a process with threads, which importing NumPy starts, can not leave its namespaces.
    temporary = request.directory / TEMPORARY
    if request.half == "second" and request.cut is not None:
        (request.first_half / TEMPORARY).rename(temporary)  # what is there lasts as the tree does
    else:
        temporary.mkdir()
    enter(request.tree, dict.fromkeys(request.temporary, temporary))
    if request.target.launched:
        from repro_audit.trial.launched.command import run_command

        return run_command(request)
    from repro_audit.trial.child import run_trial

    return run_trial(request)


def _tell_defect(error: BaseException, directory: Path) -> None:
    """Leave word of an error of ours; of one of the machine's, what to say of it."""
    machine = no_room(error, directory)
    text = to_json(machine) if machine is not None else "".join(traceback.format_exception(error))
    with suppress(OSError):  # the parent finds out about the place by itself
        (directory / DEFECT).write_text(text, encoding="utf-8")


def first_half(request: TrialRequest) -> int:
    """Train up to the checkpoint in a child, which leaves nothing in this process; its exit status."""
    request.first_half.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as in Server.fork
        parent = os.getpid()
        child = os.fork()
    if child:
        _, code = os.waitpid(child, 0)
        return abs(os.waitstatus_to_exitcode(code))
    status = InternalError.exit_code
    try:
        die_with_parent(parent)
        tree = request.first_tree or request.tree
        half = replace(request, directory=request.first_half, tree=tree, half="first")
        half.save()  # for workers that begin as new interpreters
        status = run(half)
    except BaseException as error:
        _tell_defect(error, request.directory)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def has_run_kernels() -> bool:
    """Whether some import has had ATen choose its kernels, so that no child can have it choose others.

    Those of PyTorch 2.8 and older do: https://github.com/pytorch/pytorch/blob/v2.8.0/torch/_inductor/cpu_vec_isa.py
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # as in Server.fork
        child = os.fork()
    if child == 0:
        status = 1
        with suppress(BaseException):
            os.environ["ATEN_CPU_CAPABILITY"] = "default"
            chosen = sys.modules["torch"].backends.cpu.get_cpu_capability()
            status = int(chosen not in LEAST_CAPABLE)
        os._exit(status)
    return bool(os.waitpid(child, 0)[1])


def _look_around() -> None:
    """Find out what each child would find out for itself."""
    files.know_libraries()
    for source in built_in().values():
        torch_internals.lacking(source.internals)


def preload(modules: list[str]) -> None:
    """Import `modules`, passing over those that fail; collection is off meanwhile, which saves a tenth."""
    gc.disable()
    # NOTE: a library that asks at import whether there is a CUDA device would keep forked children from using any:
    # https://docs.pytorch.org/docs/stable/generated/torch.cuda.is_available.html
    found = os.environ.get(NVML_CHECK)
    os.environ[NVML_CHECK] = "1"
    for name in modules:
        with suppress(Exception), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    del os.environ[NVML_CHECK]
    if found is not None:
        os.environ[NVML_CHECK] = found
    _look_around()
    gc.collect()
    gc.freeze()
    gc.enable()
