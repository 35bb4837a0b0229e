"""`python -m repro_audit`, the same as the command `repro-audit`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line in a process of its own, which a signal may end and whose readers may leave."""
    from repro_audit.cli import interrupts, streams

    streams.secure()
    try:
        interrupts.heed()
        from repro_audit import cli

        cli.main()
    except interrupts.Interrupted as stop:
        interrupts.ignore()
        _leave_nothing()
        sys.stderr.write(
            f"repro-audit: interrupted ({stop.signal.name}); every trial is ended, and your files are as they were\n"
        )
        raise SystemExit(stop.exit_code) from None


def _leave_nothing() -> None:
    """End and delete what is left of an audit that was cut short, even in the midst of its own cleaning up."""
    if "repro_audit.isolation.scratch" in sys.modules:
        from repro_audit.isolation import processes, scratch

        processes.kill_descendants()
        scratch.delete_all()


if __name__ == "__main__":
    # With `-m` the working directory comes first: a `rich.py` of the user's must not be taken for the library.
    if Path(sys.path[0]) == Path.cwd() and not Path(sys.path[0], "repro_audit").is_dir():
        del sys.path[0]
    main()
