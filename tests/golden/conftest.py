"""Makes the files of this folder importable from one another; `--golden` is in tests/conftest.py."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
