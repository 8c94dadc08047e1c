"""Where a run stands after an epoch, in one file: a run that is killed goes on from there."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from retrain.storage import write_atomically

_FORMAT = "fine-tuning-1"
_KINDS = ("weights", "optimizer", "best")


@dataclass(frozen=True)
class Epoch:
    """What an epoch ended with. `size`: of the pictures, in pixels; `loss`: mean over the steps, as it was trained with
    (smoothed labels, distorted and perhaps mixed pictures).

    `validation_loss`: mean cross-entropy in nats of pictures as they are; `validation_error`: the share that is wrong; both
    None without validation pictures. `seconds`: how long it took; 0 for one of an earlier run.
    """

    size: int
    loss: float
    validation_loss: float | None
    validation_error: float | None
    seconds: float = field(default=0.0, compare=False)


@dataclass
class State:
    """All that a run needs to go on: arrays of the model's and the optimizer's variables, and of the best model so far.

    `history`: the epochs that are done; `best_epoch`: counted from 1, 0 before there is one.
    """

    weights: list[np.ndarray]
    optimizer: list[np.ndarray]
    best: list[np.ndarray]
    best_epoch: int
    history: list[Epoch]


def save(path: Path, key: str, state: State) -> None:
    """Write the file, atomically. `key`: says what is trained on what and how; only a run with the same may go on from it.

    Raises EnvironmentProblem where it cannot be written.
    """
    from safetensors.numpy import save as to_bytes

    named = {f"{kind}/{number:05}": np.asarray(array, order="C") for kind, number, array in _numbered(state)}
    epochs = [{name: value for name, value in dataclasses.asdict(one).items() if name != "seconds"} for one in state.history]
    said = json.dumps({"best_epoch": state.best_epoch, "history": epochs}, sort_keys=True)
    digest = _digest(named, said)
    written = to_bytes(named, {"format": _FORMAT, "key": key, "state": said, "sha256": digest})
    write_atomically(path, written)


def load(path: Path, key: str) -> State | None:
    """Return what `save` wrote; None where there is no such file, it is damaged, or of another run."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "numpy") as file:
            said = file.metadata() or {}
            if said.get("format") != _FORMAT or said.get("key") != key:
                return None
            named = {name: file.get_tensor(name) for name in sorted(file.keys())}
        if _digest(named, said["state"]) != said["sha256"]:
            return None
        state = json.loads(said["state"])
        kinds = {kind: [array for name, array in named.items() if name.startswith(f"{kind}/")] for kind in _KINDS}
        return State(**kinds, best_epoch=state["best_epoch"], history=[Epoch(**one) for one in state["history"]])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        return None


def _numbered(state: State) -> list[tuple[str, int, np.ndarray]]:
    return [(kind, number, array) for kind in _KINDS for number, array in enumerate(getattr(state, kind))]


def _digest(named: dict[str, np.ndarray], said: str) -> str:
    """Tell a file that was damaged: the format itself has no checksum."""
    whole = hashlib.sha256(said.encode())
    for name in sorted(named):
        whole.update(name.encode())
        whole.update(np.asarray(named[name], order="C").reshape(-1).view(np.uint8).data)
    return whole.hexdigest()
