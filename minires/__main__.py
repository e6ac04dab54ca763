"""``python -m minires``: the command line, see :mod:`minires.cli`."""

from __future__ import annotations

import sys

from minires.cli import main

if __name__ == "__main__":
    sys.exit(main())
