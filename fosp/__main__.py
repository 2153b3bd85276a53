"""``python -m fosp`` is the command ``fosp``."""

import sys

from fosp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
