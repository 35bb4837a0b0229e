"""`python -m tests.gpu`: everything that needs a CUDA device, as one table; see `tests.gpu.rows`."""

from __future__ import annotations

import sys

from tests.gpu.rows import main

if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
