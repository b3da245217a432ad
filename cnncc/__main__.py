"""`python -m cnncc` is the command `cnncc`."""

import sys

from cnncc.cli import main

if __name__ == "__main__":
    sys.exit(main())
