"""``python -m flowrun`` is ``flowrun``."""

import sys

from flowrun.cli import main

if __name__ == "__main__":
    sys.exit(main())
