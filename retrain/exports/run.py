"""Export a model: write, run, compare, and only then put in place."""

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retrain import artifact
from retrain.artifact import Loaded
from retrain.errors import EnvironmentProblem, RetrainError, UsageError, from_os_error
from retrain.exports import formats, pictures, written, zipped
from retrain.exports.composed import SCORES, compose, inputs
from retrain.exports.proof import Proof, prove
from retrain.progress import SILENT, Progress
from retrain.storage import SENTINEL, Layout, folder_locked, is_own, own_folder, sync_folder
from retrain.views import DEFAULT_VIEW, SEVERAL

if TYPE_CHECKING:
    import keras

PROOF, METADATA, LABELS = "proof.json", "metadata.json", "labels.txt"


@dataclass(frozen=True)
class Exported:
    """An export. `folder`: where it lies, or would; `problem`: why it was not kept; `bytes`: of the format's own files."""

    format: formats.Format
    folder: Path
    bytes: int = 0
    proof: Proof | None = None
    problem: str = ""


def export(
    tf_files: str | os.PathLike[str],
    names: Sequence[str],
    *,
    model: Path | None = None,
    output: Path | None = None,
    data: Path | None = None,
    least: float | None = None,
    weights: Path | None = None,
    progress: Progress = SILENT,
) -> list[Exported]:
    """Export the model of a working folder to formats, by their names, each to `tf_files/export/<format>/`.

    `model`: another model folder or zip; `output`: another folder, for one format only; `data`: pictures to compare on
    [the model's test part]; `least`: the share of them that must get the model's label [the format's own]; `weights`: the
    file for a network of keras.applications, or the SavedModel it came as.

    Each export is run in its own runtime and compared before it takes the place of an earlier one; one that differs by more
    leaves nothing, and its `problem` says so. Raises UsageError, ModelRefused, NothingUsable and EnvironmentProblem.
    """
    layout = Layout(Path(tf_files))
    chosen = [formats.get(name) for name in dict.fromkeys(names)]
    if output is not None and len(chosen) != 1:
        raise UsageError("--output is a folder for one format; give one --format, or leave --output out")
    if weights is not None and all(one.name == formats.ZIP for one in chosen):
        raise UsageError("--weights does nothing for a zip, which has the network as it is; leave it out")
    for one in chosen:
        written.check_needs(one)
    targets = {one.name: output or layout.root / "export" / one.name for one in chosen}
    for target in targets.values():
        _check_target(target)
    loaded = artifact.load(model or layout.model)
    seen = pictures.compared(loaded, layout, data, progress)
    if loaded.artifact.way == SEVERAL:
        progress.note("the model looks at several views of a picture (--tta); exports look at each as it is")
    network = compose(loaded.artifact, weights) if any(one.name != formats.ZIP for one in chosen) else None
    if output is None:
        own_folder(layout.root / "export")
    job, parent = _Job(loaded, network, seen, layout), next(iter(targets.values())).parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise from_os_error(error, "write to", parent) from None
    with folder_locked(parent, "exporting"):
        for target in targets.values():
            _recover(target)
        return [_one(one, targets[one.name], job, one.least if least is None else least, progress) for one in chosen]


@dataclass(frozen=True)
class _Job:
    """What all formats are written from, and compared with."""

    loaded: Loaded
    network: "keras.Model | None"
    seen: pictures.Compared
    layout: Layout

    @property
    def squashed(self) -> bool:
        """Whether pictures are only scaled before the network gets them."""
        return all(member.view == DEFAULT_VIEW for member in self.loaded.artifact.members)


def _one(one: formats.Format, target: Path, job: _Job, least: float, progress: Progress) -> Exported:
    progress.note(f"exporting to {one.name}")
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    path = fresh / one.file
    try:
        fresh.mkdir(parents=True)
        (fresh / SENTINEL).write_bytes(b"written by retrain\n")
        try:
            if job.network is None or one.name == formats.ZIP:
                zipped.write(job.loaded.whole(), path)
            else:
                written.write(one, job.network, path, job.squashed, lambda: pictures.calibration(job.loaded, job.layout))
            proof = prove(one, path, job.seen, least, job.squashed)
        except EnvironmentProblem:
            raise
        except RetrainError as error:  # the other formats go on
            return Exported(one, target, problem=str(error))
        size = sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
        if not proof.holds:
            said = f"its top label is the model's on {proof.same.agreement:.1%} of {proof.same.pictures} pictures"
            return Exported(one, target, size, proof, f"{one.name}: {said}, and {least:.1%} are demanded; nothing was kept")
        for name, value in ((PROOF, proof.as_json()), (METADATA, _metadata(one, job))):
            (fresh / name).write_text(json.dumps(value, indent=1) + "\n")
        (fresh / LABELS).write_bytes(job.loaded.labels_text)
        _place(fresh, target)
        return Exported(one, target, size, proof)
    except OSError as error:
        raise from_os_error(error, "write to", target) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _metadata(one: formats.Format, job: _Job) -> dict[str, Any]:
    model = job.loaded.artifact
    entries = [{"name": name, "shape": [size, size, 3], "values": one.takes} for name, size in inputs(model).items()]
    scaled = "scaled to the size of the input, bicubic with antialiasing; RGB, upright, transparent parts white"
    return {
        "format": one.name,
        "labels": list(model.labels),
        "inputs": [] if one.name == formats.ZIP else entries,
        "output": f"{SCORES}: float32, probabilities in the order of the labels; the temperature is in them",
        "temperature": dict(model.temperature),
        "view": model.members[0].view,
        "prepared": scaled if job.squashed else f"borders of one colour cut off, then {scaled}",
        "model": job.loaded.manifest["sha256"],
        "metrics": dict(model.metrics),
        "versions": dict(model.versions),
    }


def _check_target(target: Path) -> None:
    """Raise UsageError where a folder is there that is none of our exports."""
    if os.path.lexists(target) and not (is_own(target) and (target / PROOF).is_file()):
        raise UsageError(f"{target} is there already and is no export; choose another --output, or move it away")


def _recover(target: Path) -> None:
    """Bring back the export that a killed run was about to replace, and remove what it had not finished."""
    before = _before(target)
    if before.is_dir() and not target.exists():
        before.rename(target)
    for left in target.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(target.name)}\.([0-9]+|before)\.tmp", left.name):
            shutil.rmtree(left, ignore_errors=True)


def _before(target: Path) -> Path:
    return target.with_name(f".{target.name}.before.tmp")


def _place(fresh: Path, target: Path) -> None:
    """Put a finished export where an earlier one may lie; a full folder cannot be replaced in one step."""
    before = _before(target)
    if target.exists():
        target.rename(before)
    fresh.rename(target)
    sync_folder(target.parent)
    shutil.rmtree(before, ignore_errors=True)
