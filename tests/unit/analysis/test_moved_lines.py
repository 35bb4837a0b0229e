"""Lines of an edited program are found again, and those that are gone are taken for no other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from repro_audit.analysis.moved_lines import AS_IT_WAS, changed_lines, onto, placed
from repro_audit.storage.events import Detail, DetailWriter, Kind, Site

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path("/somewhere")
BEFORE = "import torch\n\ndef f(x):\n    y = x + 1\n    return y\n"
AFTER = "import torch\nimport os\n\n\ndef f(x):\n    y = x + 2\n    return y\n"


def detail_of(sites: Sequence[Site], directory: Path) -> Detail:
    writer = DetailWriter(directory / "detail")
    nowhere = writer.intern("")
    for site in sites:
        ids = (nowhere, writer.intern(site.text()), nowhere, nowhere)
        writer.add(Kind.LINE, 0, 0, *ids, bytes(16), bytes(16))
    writer.close()
    return Detail.open(directory / "detail")


def sites_of(detail: Detail) -> list[tuple[str, int, int]]:
    sites = [Site.read(detail.strings[number]) for number in detail.site.tolist()]
    return [(site.file, site.line, site.first) for site in sites if site is not None]


def test_a_line_that_moved_is_the_same_line(tmp_path: Path) -> None:
    recorded = detail_of([Site("train.py", line, "f", first=3) for line in (1, 4, 5)], tmp_path)
    file = str(ROOT / "train.py")
    here = placed(recorded, ROOT, {file})
    moved = onto(here, {"train.py": BEFORE}, {"train.py": AFTER}, ROOT)
    assert sites_of(moved) == [(file, 1, 5), (f"{file}{AS_IT_WAS}", 4, 3), (file, 7, 5)]
    assert sites_of(onto(here, {"train.py": BEFORE}, {"train.py": BEFORE}, ROOT)) == sites_of(here)


def test_a_file_that_the_other_run_has_not_is_not_opened(tmp_path: Path) -> None:
    recorded = detail_of([Site("/etc/passwd", 1, "f"), Site("train.py", 1, "f")], tmp_path)
    found = placed(recorded, ROOT, {str(ROOT / "train.py")})
    assert [file for file, _, _ in sites_of(found)] == [
        f"/etc/passwd{AS_IT_WAS}",
        str(ROOT / "train.py"),
    ]


def test_changed_lines() -> None:
    assert changed_lines(BEFORE, AFTER) == [2, 3, 6] or changed_lines(BEFORE, AFTER) == [2, 4, 6]
    assert changed_lines(BEFORE, BEFORE) == []
