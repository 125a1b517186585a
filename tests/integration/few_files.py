"""run.py with a limit of 1024 open files, which it can't raise."""

import resource
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.contract import checked

resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
checked.main()
