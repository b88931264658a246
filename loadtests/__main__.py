"""`python -m loadtests` is `paydrome`."""

import sys

from loadtests.cli import main

sys.exit(main())
