"""Puts the third party's package where an installer would: on the import path, beside the
metadata that registers its entry point."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "site"))
