"""`python tests/conformance --reference PYTHON --candidate PYTHON`: entry of `make conform`.

Only makes the package importable when its folder is run as a script; everything else is in
runner.py.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conformance.runner import main

if __name__ == "__main__":
    sys.exit(main())
