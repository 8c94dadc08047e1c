"""Whether permissions count for this process: root may mostly read and write what they forbid."""

import tempfile
from pathlib import Path

import pytest


def _is_all_powerful() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        closed = Path(folder) / "closed"
        closed.touch(mode=0)
        try:
            closed.read_bytes()
        except PermissionError:
            return False
    return True


ALL_POWERFUL = _is_all_powerful()
# `test_privileges.py` runs the tests that have this as their first decorator where they are skipped here.
where_permissions_count = pytest.mark.skipif(ALL_POWERFUL, reason="permissions do not count for root")
