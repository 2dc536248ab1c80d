"""The command ``dove`` as ``python -m dove``."""

import sys

from dove.cli import main

if __name__ == "__main__":
    sys.exit(main())
