"""Which targets are accepted, and how their modules are imported."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest
import torch

from repro_audit.errors import TargetError, UsageError
from repro_audit.target import parse
from repro_audit.trial.driver.loading import load
from tests.auditing import environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory of its own, and an interpreter that forgets what it imported."""
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = dict(sys.modules)
    yield directory
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]


def write(path: Path, text: str = "def build(): return 'built'\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def built(spec: str) -> object:
    return load(parse(spec))()


# parse


def test_a_file(here: Path) -> None:
    write(here / "train.py")
    target = parse("train.py:build")
    assert (target.path, target.module, target.function) == ("train.py", None, "build")
    assert (target.mode, target.argv) == ("build", ())


def test_a_module(here: Path) -> None:
    write(here / "pkg" / "mod.py")
    target = parse("pkg.mod:build")
    assert (target.path, target.module) == (None, "pkg.mod")


@pytest.mark.parametrize(
    ("spec", "what", "hint"),
    [
        ("trian.py:build", "There is no file trian.py", "train.py"),
        ("train.py:biuld", "defines no biuld", "train.py:build"),
        ("train.py", "which nothing calls", "repro-audit check train.py:build"),
        ("train", "There is no file train", "train.py"),
        ("trian.py", "There is no file trian.py", "train.py"),
        ("pkg.mod", "There is no file pkg.mod", "-m pkg.mod"),
        ("data", "is a directory", "clean.py"),
        ("run.sh", "is no Python program", "check -- run.sh"),
        ("pkg.mdo:build", "There is no module pkg.mdo", "pkg.mod"),
        ("pgk.mod:build", "There is no module pgk", "pkg"),
        ("pkg.mod.deep:build", "is a module, not a package", ""),
        ("pkg:build", "defines no build", ""),
        ("pkg/:build", "defines no build", ""),
        ("data:build", "is a directory without code", "data.clean:build"),
        ("data/:build", "is a directory", "data/clean.py:build"),
        ("notes.ipynb:build", "is a notebook", "check notes.ipynb"),
        ("train.py:", "names no function", "train.py:build"),
        (":build", "names no function", ""),
        ("train.py:build it", "names no function", ""),
        ("", "No target is named", ""),
        ("--stpes", "No target is named", ""),
        ("-m", "needs the name of a module", ""),
        ("train.v2:build", "reads as a module in a package", "train.v2.py:build"),
    ],
)
def test_a_wrong_spec_is_refused_with_the_nearest_name(
    here: Path, spec: str, what: str, hint: str
) -> None:
    write(here / "train.py")
    write(here / "train.v2.py")
    write(here / "pkg" / "__init__.py", "")
    write(here / "pkg" / "mod.py")
    write(here / "data" / "clean.py")
    write(here / "notes.ipynb", "{}")
    write(here / "run.sh", "#!/bin/sh\npython train.py\n")
    with pytest.raises(UsageError) as caught:
        parse(spec)
    assert what in caught.value.what
    assert hint in caught.value.next_step


def test_arguments_are_refused_where_a_function_is_called(here: Path) -> None:
    write(here / "train.py")
    with pytest.raises(UsageError, match="takes no arguments") as caught:
        parse("train.py:build", ["--lr", "1"])
    assert "check train.py --lr 1" in caught.value.next_step


# Scripts


def test_a_command_wants_two_dashes(here: Path) -> None:
    with pytest.raises(UsageError, match="There is no file sh") as caught:
        parse("sh", ["-c", "python train.py"])
    assert "check -- sh -c 'python train.py'" in caught.value.next_step


def test_a_script(here: Path) -> None:
    write(here / "train.py", "print('trains')\n")
    target = parse("train.py", ["--steps", "1", "x.py:build"])
    assert (target.mode, target.path, target.function) == ("script", "train.py", "")
    assert (target.spec, target.argv) == ("train.py", ("--steps", "1", "x.py:build"))


@pytest.mark.parametrize(
    "text",
    [
        "def build(): pass\n\nif __name__ == '__main__':\n    build()\n",
        "def build(): pass\n\nmodel = build()\n",
        "def build(): pass\n\ndef main(): build()\n\nmain()\n",
        "x = 1\n",
    ],
)
def test_a_script_that_calls_what_it_defines_is_run(here: Path, text: str) -> None:
    write(here / "train.py", text)
    assert parse("train.py").mode == "script"


def test_a_module_as_a_script(here: Path) -> None:
    write(here / "pkg" / "__init__.py", "")
    write(here / "pkg" / "train.py", "")
    target = parse("-m", ["pkg.train", "-m", "--lr", "1"])
    assert (target.mode, target.module, target.path) == ("script", "pkg.train", None)
    assert (target.spec, target.argv) == ("-m pkg.train", ("-m", "--lr", "1"))
    with pytest.raises(UsageError, match=r"has no __main__\.py") as caught:
        parse("-m", ["pkg"])
    assert "-m pkg.train" in caught.value.next_step
    write(here / "pkg" / "__main__.py", "")
    assert parse("-m", ["pkg"]).module == "pkg"


@pytest.mark.parametrize(
    ("words", "hint"),
    [(["pkg/train.py"], "-m pkg.train"), (["pkg.trian"], "pkg.train"), (["pgk.train"], "pkg")],
)
def test_a_wrong_module_is_refused(here: Path, words: list[str], hint: str) -> None:
    write(here / "pkg" / "__init__.py", "")
    write(here / "pkg" / "train.py", "")
    with pytest.raises(UsageError) as caught:
        parse("-m", words)
    assert hint in caught.value.next_step


HYDRA = """
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config): ...
"""


def test_hydras_function_is_refused(here: Path) -> None:
    write(here / "train.py", HYDRA)
    with pytest.raises(UsageError, match="called by hydra") as caught:
        parse("train.py:main")
    assert "check train.py OVERRIDES" in caught.value.next_step


@pytest.mark.parametrize(
    "text",
    [
        "build = lambda: 'built'",
        "from os.path import *\ndef make(): return 'built'\nglobals()['build'] = make",
        "if True:\n    def build(): return 'built'",
        "try:\n    import nothing_at_all\nexcept ImportError:\n    build = lambda: 'built'",
        "for build in [lambda: 'built']: pass",
        "def __getattr__(name): return lambda: 'built'",
        "class Factory:\n    @staticmethod\n    def build(): return 'built'\nbuild = Factory.build",
    ],
)
def test_a_function_may_be_bound_in_any_way(here: Path, text: str) -> None:
    write(here / "train.py", text)
    assert built("train.py:build") == "built"


def test_parsing_imports_nothing(here: Path) -> None:
    write(here / "pkg" / "__init__.py", "raise RuntimeError('imported')")
    write(here / "pkg" / "mod.py", "raise RuntimeError('imported')\ndef build(): pass")
    assert parse("pkg.mod:build").module == "pkg.mod"
    assert parse("pkg/mod.py:build").path == "pkg/mod.py"


def test_parsing_needs_no_torch() -> None:
    script = "import sys, repro_audit.target; sys.exit('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", script], env=environment(), check=False)
    assert ended.returncode == 0


def test_a_syntax_error_is_left_to_python(here: Path) -> None:
    write(here / "train.py", "def build(:\n")
    with pytest.raises(SyntaxError):
        load(parse("train.py:build"))


# load


def test_a_file_finds_its_neighbours(here: Path) -> None:
    write(here / "src" / "train.py", "import helper_of_mine\nbuild = helper_of_mine.build")
    write(here / "src" / "helper_of_mine.py")
    assert built("src/train.py:build") == "built"


def test_relative_imports_in_a_package(here: Path) -> None:
    write(here / "lib" / "__init__.py", "")
    write(here / "lib" / "parts" / "__init__.py", "")
    write(here / "lib" / "model.py")
    write(here / "lib" / "parts" / "train.py", "from ..model import build\nfrom . import other")
    write(here / "lib" / "parts" / "other.py", "import other_neighbour")
    write(here / "lib" / "parts" / "other_neighbour.py", "")
    assert built("lib/parts/train.py:build") == "built"
    assert built("lib.parts.train:build") == "built"


def test_relative_imports_without_init_files(here: Path) -> None:
    write(here / "deep" / "src" / "model.py")
    write(here / "deep" / "src" / "train.py", "from .model import build")
    assert built("deep/src/train.py:build") == "built"
    assert "deep.src.train" in sys.modules


def test_relative_imports_outside_of_the_working_directory(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere" / "model.py")
    path = write(tmp_path / "elsewhere" / "sub" / "train.py", "from ..model import build")
    assert built(f"{path}:build") == "built"


def test_a_neighbour_in_a_package_does_not_hide_the_standard_library(here: Path) -> None:
    write(here / "lib" / "__init__.py", "")
    write(here / "lib" / "colorsys.py", "raise RuntimeError")
    write(here / "lib" / "train.py", "import colorsys\ndef build(): return colorsys.ONE_THIRD")
    assert built("lib/train.py:build") == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["train-model", "train.v2", "2nd", "random", "math", "torch"])
def test_names_that_no_import_statement_could_use(here: Path, name: str) -> None:
    write(here / f"{name}.py")
    assert built(f"{name}.py:build") == "built"
    assert sys.modules["torch"] is torch


def test_a_file_without_a_suffix(here: Path) -> None:
    write(here / "train")
    assert built("train:build") == "built"


@pytest.mark.parametrize("name", ["train", "train.v2", "random"])
def test_a_new_interpreter_can_import_the_module(here: Path, name: str) -> None:
    """As a DataLoader worker does under spawn: it is given `sys.path` and pickled names."""
    write(here / "src" / f"{name}.py", "class Data: pass\ndef build(): return Data")
    data = built(f"src/{name}.py:build")
    assert isinstance(data, type)
    script = f"import sys; sys.path[:] = {sys.path!r}; import {data.__module__} as m; m.Data"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_file_is_itself_under_an_alias(here: Path) -> None:
    text = "def build(): return __file__, __name__, build.__code__.co_filename"
    path = write(here / "train.v2.py", text)
    names = built("train.v2.py:build")
    assert isinstance(names, tuple)
    assert names[0] == names[2] == str(path)
    assert names[1] != "__main__"


def test_sys_argv_is_the_programs(here: Path) -> None:
    path = write(here / "train.py", "import sys\ndef build(): return list(sys.argv)")
    assert built("train.py:build") == [str(path)]


def test_what_the_module_raises_passes_through(here: Path) -> None:
    write(here / "train.py", "import nothing_at_all\ndef build(): pass")
    with pytest.raises(ModuleNotFoundError, match="nothing_at_all"):
        load(parse("train.py:build"))


def test_a_package_by_the_name_of_a_loaded_module(here: Path) -> None:
    write(here / "json" / "__init__.py", "")
    write(here / "json" / "train.py")
    with pytest.raises(TargetError, match="name of a module that is already loaded"):
        load(parse("json/train.py:build"))


def test_a_function_that_only_the_import_could_tell_is_missing(here: Path) -> None:
    write(here / "train.py", "from os.path import *\ndef built(): pass")
    with pytest.raises(TargetError) as caught:
        load(parse("train.py:build"))
    assert "built" in caught.value.next_step


def test_a_name_that_is_no_function(here: Path) -> None:
    write(here / "train.py", "build = 3")
    with pytest.raises(TargetError, match="is no function: it is of type int"):
        load(parse("train.py:build"))


def test_an_attribute_of_a_class(here: Path) -> None:
    write(here / "train.py", "class A:\n    @staticmethod\n    def build(): return 'built'")
    assert built("train.py:A.build") == "built"


def test_a_command_keeps_its_words() -> None:
    target = parse("--", ["sh", "-c", "python train.py", "--", "-m"])
    assert (target.mode, target.spec) == ("command", "--")
    assert target.argv == target.launched == ("sh", "-c", "python train.py", "--", "-m")


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ([], "give -- torchrun train.py ARGS"),
        (["train.py"], "did you mean -- python train.py"),
        (["LR=2", "sh"], "-- env LR=2 sh"),
        (["no-such-launcher-anywhere-0"], "is it installed, and on the PATH?"),
    ],
)
def test_what_is_no_command(words: list[str], step: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("--", words)
    assert step in caught.value.next_step
