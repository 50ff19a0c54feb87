"""``python -m sdekit``."""

import sys

from .cli import main

sys.exit(main())
