"""The entry point of `python -m research VERB ...`."""

from __future__ import annotations

import sys

from research.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
