"""``python -m glamkit`` is the command ``glamkit``."""

import sys

from glamkit.cli import main

sys.exit(main())
