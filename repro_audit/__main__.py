"""`python -m repro_audit`, the same as the command `repro-audit`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # With `-m` the working directory comes first: a `rich.py` of the user's must not be taken for the library.
    if Path(sys.path[0]) == Path.cwd() and not Path(sys.path[0], "repro_audit").is_dir():
        del sys.path[0]
    from repro_audit.cli import main

    main()
