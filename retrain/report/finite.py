"""Values that JSON can hold."""

import math
from typing import Any


def finite(value: Any) -> Any:
    """Return dictionaries, lists and numbers with None in place of what JSON has no number for."""
    if isinstance(value, dict):
        return {key: finite(its) for key, its in value.items()}
    if isinstance(value, list | tuple):
        return [finite(its) for its in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
