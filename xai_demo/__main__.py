"""`python -m xai_demo`: the command line."""

import sys

from xai_demo.cli import main

if __name__ == "__main__":
    sys.exit(main())
