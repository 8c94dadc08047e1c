"""What root skips is run as a root that permissions count for."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.privileges import ALL_POWERFUL

TESTS = Path(__file__).parent
MARKED = re.compile(r"^@where_permissions_count\n(?:@.*\n)*def (test_\w+)", re.MULTILINE)
POWERLESS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all", "--"]


def marked() -> list[str]:
    return [f"{path}::{name}" for path in sorted(TESTS.rglob("test_*.py")) for name in MARKED.findall(path.read_text())]


def test_every_mark_is_seen() -> None:
    marks = sum(path.read_text().count("\n@where_permissions_count") for path in TESTS.rglob("test_*.py"))
    assert len(marked()) == marks >= 5


@pytest.mark.weights
@pytest.mark.skipif(not (ALL_POWERFUL and shutil.which("setpriv")), reason="permissions count here, or no setpriv")
def test_what_root_skips_passes_where_permissions_count(tmp_path: Path) -> None:
    if subprocess.run([*POWERLESS, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this root may not give up what it may do")
    options = ["-vv", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'room'}"]
    line = [*POWERLESS, sys.executable, "-m", "pytest", *options, *marked()]
    ran = subprocess.run(line, cwd=TESTS.parent, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stdout
    assert re.fullmatch(r"=+ \d+ passed in .*", ran.stdout.splitlines()[-1]), ran.stdout
    assert all(f"/{name.rpartition('/')[2]}" in ran.stdout for name in marked())
