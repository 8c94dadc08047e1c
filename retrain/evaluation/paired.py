"""Whether one model is better than another on the same pictures, by more than noise."""

import math
from typing import NamedTuple

import numpy as np

# Standard errors, by the number of units less one: a difference beyond them is seen in one of forty pairs that are equally
# good (Student's t, 97.5 %).
_ERRORS = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110,
    2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_OF_MANY = 2.0  # of more units than that
_MANY = 10**9


class Paired(NamedTuple):
    """The mean of differences, picture by picture, and its standard error; of so many `pictures` in so many `units`."""

    mean: float
    standard_error: float
    pictures: int
    units: int = _MANY

    @property
    def margin(self) -> float:
        """Half of the 95 % interval of the mean."""
        errors = _ERRORS[self.units - 2] if 2 <= self.units < len(_ERRORS) + 2 else _OF_MANY
        return errors * self.standard_error

    @property
    def beyond_noise(self) -> bool:
        """Whether the mean is above 0 by more than its margin."""
        return self.mean > self.margin

    def as_json(self) -> dict[str, float | int | None]:
        """Return it as JSON values; what is not known, as there is one unit only, is None."""
        error = self.standard_error if math.isfinite(self.standard_error) else None
        return {"mean": self.mean, "standard_error": error, "pictures": self.pictures, "units": self.units}

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.margin:.3f}"


def paired(differences: np.ndarray, units: np.ndarray) -> Paired:
    """Return the mean difference and its standard error.

    `differences`: float (n,); `units`: int64 (n,): pictures of one unit are no independent witnesses, so the error is that
    of a mean over clusters (K.-Y. Liang, S. Zeger, "Longitudinal data analysis using generalized linear models",
    Biometrika, 1986). With a single unit the error is infinite.
    """
    mean = float(differences.mean())
    _, number = np.unique(units, return_inverse=True)
    sums = np.bincount(number, weights=differences - mean)
    clusters = len(sums)
    if clusters < 2:
        return Paired(mean, float("inf"), len(differences), clusters)
    error = np.sqrt((sums**2).sum() * clusters / (clusters - 1)) / len(differences)
    return Paired(mean, float(error), len(differences), clusters)
