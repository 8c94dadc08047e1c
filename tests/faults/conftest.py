"""What several of these files share."""

import pytest

from tests.faults.trains import Before, prepare


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Before:
    """A working folder to disturb copies of, made by two whole runs; tests must not change it."""
    return prepare(tmp_path_factory.mktemp("before"))
