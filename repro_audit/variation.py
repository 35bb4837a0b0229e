"""One thing changed for a second run of a program: the interpreter, a variable, its arguments, or its commit."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import xxhash

from repro_audit.errors import UsageError, nearest
from repro_audit.findings.sides import git
from repro_audit.replacements import environment
from repro_audit.target import Target, parse
from repro_audit.trial.runner import PACKAGE_PARENT, Python

KINDS = ("python", "env", "args", "commit")
_SECONDS = 120.0
_ASKED = """
import importlib.util, sys
assert sys.version_info >= (3, 10), sys.version
needed = ("torch", "numpy", "xxhash")
print(sys.implementation.cache_tag, *(name for name in needed if importlib.util.find_spec(name) is None))
"""
"""What another interpreter is asked: for which version of Python packages are built there, and which it lacks."""
_FORMS = "python=../old/bin/python, env=OMP_NUM_THREADS=4, args=--compile or commit=HEAD~3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What is changed, and to what."""

    kind: str
    value: str

    @classmethod
    def read(cls, text: str) -> Variation:
        """What `--vary` was given.

        Raises:
            UsageError: it names nothing that can be changed.
        """
        kind, _, value = text.partition("=")
        if kind not in KINDS:
            raise UsageError(
                f"nothing is known of {kind!r} that could be varied",
                where="--vary",
                next_step=nearest(kind, KINDS, "kind"),
            )
        if not value or (kind == "env" and "=" not in value):
            raise UsageError(
                f"{text!r} does not say what to vary", where="--vary", next_step=f"give {_FORMS}"
            )
        return cls(kind=kind, value=value)

    @property
    def words(self) -> str:
        """`with OMP_NUM_THREADS=4`, `at commit HEAD~3`."""
        return f"at commit {self.value}" if self.kind == "commit" else f"with {self.value}"

    @contextmanager
    def in_force(self, target: Target, temporary: Path) -> Iterator[tuple[Target, Python | None]]:
        """Change it: the target that is to run then, and the interpreter where it is not this one.

        Raises:
            UsageError: it can not be changed so.
        """
        if self.kind == "python":
            yield target, _python(self.value, temporary / "package")
        elif self.kind == "env":
            name, _, value = self.value.partition("=")
            with environment({name: value}):
                yield target, None
        elif self.kind == "args":
            words = shlex.split(self.value)
            if target.mode == "build":
                raise UsageError(
                    f"{target.spec} takes no arguments: its function is called",
                    where="--vary args",
                    next_step="have it run as a script",
                )
            yield parse(target.spec, (*target.argv, *words)), None
        else:
            with _checked_out(self.value, temporary / "commit"):
                yield parse(target.spec, target.argv), None


def _python(path: str, package: Path) -> Python:
    """Another interpreter, and a directory that holds this package alone, so that it finds nothing else of ours.

    xxhash goes along where both are of the same version of Python, for which alone it is built.
    """
    found = shutil.which(path)
    try:
        done = subprocess.run(
            [found or path, "-c", _ASKED], capture_output=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"{path} does not run as a Python", where="--vary python", why=str(error)
        ) from error
    tag, *missing = done.stdout.decode(errors="replace").split() or [""]
    same = tag == sys.implementation.cache_tag
    ours = {"xxhash": Path(str(xxhash.__file__)).parent} if same else {}
    lacking = [name for name in missing if name not in ours]
    if done.returncode or lacking:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UsageError(
            f"trials can not run in {path}",
            where="--vary python",
            why=f"it has no {', '.join(lacking)}" if lacking else "".join(last),
            next_step=f"{path} -m pip install {' '.join(lacking)}"
            if lacking
            else "it must be Python 3.10 or later",
        )
    package.mkdir()
    (package / "repro_audit").symlink_to(Path(PACKAGE_PARENT) / "repro_audit")
    for name in missing:
        (package / name).symlink_to(ours[name])
    return os.path.abspath(found or path), str(package)  # noqa: PTH100 - a link makes a virtual environment


@contextmanager
def _checked_out(commit: str, place: Path) -> Iterator[None]:
    """Work in the tree of a commit, beside which lies what git does not know of the present one: data, for one."""
    here = Path.cwd()
    root = git(here, "rev-parse", "--show-toplevel")
    name = git(here, "rev-parse", "--verify", f"{commit}^{{commit}}") if root else ""
    if not name:
        why = f"there is no commit {commit}" if root else "this directory is in no git repository"
        raise UsageError(
            "the program can not be had at another commit", where="--vary commit", why=why
        )
    place.mkdir()
    archive = place.with_suffix(".tar")
    with archive.open("wb") as file:
        subprocess.run(["git", "archive", name], cwd=root, stdout=file, check=True)  # noqa: S607 - the user's own
    with tarfile.open(archive) as packed:
        packed.extractall(place, filter="data")
    archive.unlink()
    untracked = git(Path(root), "ls-files", "--others", "--directory", "-z").split("\0")
    for each in filter(None, untracked):
        source, target = Path(root) / each.rstrip("/"), place / each.rstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if (source / "pyvenv.cfg").exists():
            target.symlink_to(source)
        elif source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target, symlinks=True, copy_function=_link, dirs_exist_ok=True)
        else:
            _link(str(source), str(target))
    os.chdir(place / here.relative_to(Path(root).resolve()))
    try:
        yield
    finally:
        os.chdir(here)


def _link(source: str, target: str) -> None:
    """Have a file at a second place; what a trial writes there goes to its overlay or copy of the tree."""
    if Path(target).exists():
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another disk
        shutil.copy2(source, target, follow_symlinks=False)
