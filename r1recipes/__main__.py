"""`python -m r1recipes` is the command line."""

import sys

from r1recipes.cli import main

sys.exit(main())
