"""How loss and error fall while heads are trained, on pictures that they learn from and on others."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from retrain.head.softmax import Head
from retrain.scores import cross_entropies

_MOST_ROWS = 2000  # of each kind: a curve needs no more, and is drawn while training waits


@dataclass(frozen=True)
class History:
    """Mean cross-entropy, in nats, and error rate, 0 to 1, after so many `steps`.

    `learnt`: of pictures that the heads learn from; `held_out`: of others, which `held_out_are` names.
    """

    steps: tuple[int, ...]
    learnt_loss: tuple[float, ...]
    held_out_loss: tuple[float, ...]
    learnt_error: tuple[float, ...]
    held_out_error: tuple[float, ...]
    held_out_are: str

    def figures(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps with their figures by name, as TensorBoard draws them."""
        names = ("loss", "validation loss", "error", "validation error")
        columns = (self.learnt_loss, self.held_out_loss, self.learnt_error, self.held_out_error)
        for step, *row in zip(self.steps, *columns, strict=True):
            yield step, dict(zip(names, row, strict=True))


class Observer:
    """Measures heads of one strength, one for each choice of rows, as often as it is shown them; further ones are not."""

    def __init__(self, features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, seed: int) -> None:
        """`held_out`: bool (heads, n), the rows that each head does not learn from; otherwise as `fit`."""
        self._features, self._labels, self._held_out = features, labels, held_out
        order = np.random.default_rng(seed).permutation(len(labels))
        self._sample = np.sort(order[:_MOST_ROWS])
        among = np.asarray(held_out.any(axis=0))
        self._others = np.sort(order[among[order]][:_MOST_ROWS])
        self._measured: list[tuple[int, float, float, float, float]] = []

    def watch(self, step: int, heads: list[list[Head]]) -> None:
        """Measure the heads after `step` steps."""
        learnt, others = [], []
        for (head,), held_out in zip(heads, self._held_out, strict=False):
            learnt.append(self._of(head, self._sample[~held_out[self._sample]]))
            others.append(self._of(head, self._others[held_out[self._others]]))
        (learnt_loss, learnt_error), (loss, error) = (np.concatenate(rows, axis=1).mean(axis=1) for rows in (learnt, others))
        self._measured.append((step, float(learnt_loss), float(loss), float(learnt_error), float(error)))

    def _of(self, head: Head, rows: np.ndarray) -> np.ndarray:
        """Loss and error of each row: float64 (2, m)."""
        logits, labels = head.logits(self._features[rows]).astype(np.float64), self._labels[rows]
        with np.errstate(all="ignore"):  # where training diverges, which its end will tell
            losses = cross_entropies(logits, labels)
        return np.stack([losses, (logits.argmax(axis=1) != labels).astype(np.float64)])

    def history(self, held_out_are: str) -> History:
        """Return what was measured."""
        steps, learnt_loss, loss, learnt_error, error = zip(*self._measured, strict=True)
        return History(steps, learnt_loss, loss, learnt_error, error, held_out_are)
