"""Whether one model is better than another on the same pictures, by more than noise."""

from typing import NamedTuple

import numpy as np

_ERRORS = 2.0  # standard errors: a difference beyond them is seen in one of forty pairs that are equally good


class Paired(NamedTuple):
    """The mean of differences, picture by picture, and its standard error; of so many `pictures`."""

    mean: float
    standard_error: float
    pictures: int

    @property
    def beyond_noise(self) -> bool:
        """Whether the mean is above 0 by more than two standard errors."""
        return self.mean > _ERRORS * self.standard_error

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {_ERRORS * self.standard_error:.3f}"


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
        return Paired(mean, float("inf"), len(differences))
    error = np.sqrt((sums**2).sum() * clusters / (clusters - 1)) / len(differences)
    return Paired(mean, float(error), len(differences))
