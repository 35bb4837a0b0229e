"""How a target failed, in its own words: what it raised, without the tool's frames, and what that probably means."""

from __future__ import annotations

import traceback
from pathlib import Path

from repro_audit import notebook as notebooks
from repro_audit.errors import (
    MissingInternalError,
    NeverTrainedError,
    SourceFailedError,
    TargetError,
    TrainsElsewhereError,
)
from repro_audit.isolation.room import no_room
from repro_audit.storage.facts import Failure
from repro_audit.target import Target
from repro_audit.trial.request import TrialRequest

_USAGE = 2
"""What argparse and click exit with where arguments are missing."""
PACKAGE = str(Path(__file__).resolve().parents[1])


def failure_of(error: BaseException, request: TrialRequest) -> Failure:
    """How the target failed, in its own words; an error of ours is raised again."""
    whole = "".join(traceback.format_exception(error))
    match error:
        case TargetError():
            return Failure(
                what=error.what,
                whole=whole,
                traceback=error.where,
                why=error.why,
                next_step=error.next_step,
                stopped_training=isinstance(error, (NeverTrainedError, TrainsElsewhereError)),
                elsewhere=isinstance(error, TrainsElsewhereError),
            )
        case SystemExit():
            why, next_step = _of_exit(error.code, request.target)
            return Failure(
                what=f"the target called sys.exit({error.code!r})",
                traceback=_theirs(error),
                why=why,
                next_step=next_step,
            )
        case SourceFailedError():
            raise error
        case MissingInternalError() if request.watch.window is None:
            raise error
        case MissingInternalError():
            return Failure(what=error.what, why=error.why, ours=True)
    if _raised_by_us(error) and no_room(error, request.directory) is not None:
        raise error
    asks = isinstance(error, EOFError) and "reading a line" in str(error)
    return Failure(
        what=_in_one_line(error),
        traceback=_theirs(error),
        whole=whole,
        ours=_raised_by_us(error),
        missing=str(Path(error.filename).absolute())
        if isinstance(error, FileNotFoundError) and isinstance(error.filename, str)
        else "",
        why="the program asks for input, and a trial has none" if asks else "",
        next_step="give it by arguments or a file" if asks else "",
    )


def _in_one_line(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error}"
    return "".join(traceback.format_exception_only(error)).strip()


def _of_exit(code: object, target: Target) -> tuple[str, str]:
    """Why a program probably ended itself, and what to do."""
    if target.mode == "script":
        example = f"repro-audit check {target.spec} --option ..."
        if code == _USAGE:
            return (
                "most likely an argument is missing or wrong",
                f"what follows it is its own: {example}",
            )
        return ("" if code else "it ended with success before it trained"), ""
    if code != _USAGE:
        return "", ""
    place = target.path or f"-m {target.module}"
    return (
        "most likely it reads a command line, and a function that is called has none",
        f"have it run as a script: repro-audit check {place} --option ...",
    )


def _theirs(error: BaseException) -> str:
    """The traceback of `error` without the tool's frames and the import machinery's."""
    chain = traceback.TracebackException.from_exception(error)
    part: traceback.TracebackException | None = chain
    while part is not None:
        kept = [_in_cell(frame) for frame in part.stack if not _ours(frame.filename)]
        part.stack = traceback.StackSummary.from_list(kept)
        part = part.__cause__ or part.__context__
    return "".join(chain.format())


def _in_cell(frame: traceback.FrameSummary) -> traceback.FrameSummary:
    """A frame with the file and the line that its reader knows: of a notebook, those of a cell."""
    notebook = notebooks.of_file(frame.filename)
    if notebook is None or frame.lineno is None:
        return frame
    cell, line = notebook.place(frame.lineno)
    file = f"{frame.filename}, cell {cell}"
    return traceback.FrameSummary(file, line, frame.name, lookup_line=False, line=frame.line)


def _raised_by_us(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_code.co_filename.startswith(PACKAGE)


def _ours(filename: str) -> bool:
    return filename.startswith((PACKAGE, "<frozen importlib"))
