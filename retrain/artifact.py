"""The model folder: save, load, verify. Whatever labels pictures reads only this.

    manifest.json              what the model is, and the sha256 of every other file; the only name that is replaced
    labels.txt                 the labels, one a line, for people and scripts
    backbone-<hash>.tflite     the network that gives features (.graph: for TensorFlow, where LiteRT cannot run it)
    weights-<hash>.safetensors the same network's weights by name, where it was fine-tuned: to train or export it again
    head-<hash>.safetensors    kernel (feature_size, classes) and bias (classes,), float32
    reference-<hash>.safetensors   a sample of the training features, for `unknown` and nearest neighbours
    split-<hash>.csv           which picture (sha256) was in which part

Files are named by their content and written before the manifest, so at any moment the folder holds the old model or
the new one, whole. Files that the manifest does not list are never opened; the next save but one collects them. There is no
code in it, and no time, path or duration, so the same data, settings and seed give the same bytes.
"""

import csv
import hashlib
import io
import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrain import distortions
from retrain.errors import ModelRefused, UsageError
from retrain.model_files import ModelFiles, opened
from retrain.runner import Network, Runner
from retrain.storage import locked, own_folder, write_atomically
from retrain.views import PLAIN, SEVERAL

FORMAT, VERSION = "retrain-model", 1
MANIFEST, LABELS = "manifest.json", "labels.txt"
_OUR_NAME = re.compile(
    r"(?:backbone|weights|head|reference|split|labels)-[0-9a-f]{16}\.(?:tflite|graph|safetensors|csv|txt)"
)
_OUR_TEMPORARY = re.compile(rf"\.(?:{_OUR_NAME.pattern}|manifest\.json|labels\.txt)\.[0-9]+\.tmp")
_ENDINGS = {Runner.engine: "tflite"}  # of a backbone's file, by what it runs in; others: graph
_LARGEST_MANIFEST = 64 * 2**20
_REFERENCE_ROWS = 2000
_MOST_VIEWS = 64  # to look at a picture in


@dataclass(frozen=True)
class Member:
    """A backbone, how it wants its pictures, and a head. A model has one, or several whose probabilities are averaged.

    `network` runs in what `runner.open_network` gives; `kernel` float32 (feature_size, classes); `bias` float32 (classes,).
    `tuned`: the weights of a fine-tuned backbone by name, float32; empty for one that was not.
    """

    backbone: str
    weights: str
    view: str
    preprocessing: str
    image_size: int
    network: Network
    kernel: np.ndarray
    bias: np.ndarray
    tuned: Mapping[str, np.ndarray] = field(default_factory=dict)


class Placed(NamedTuple):
    """Where one training picture went: a row of the split."""

    sha256: str
    label: str
    group: str
    source: str
    part: str


@dataclass(frozen=True)
class Reference:
    """A sample of the training features under the first member.

    `features`: float16 (m, feature_size); `hashes`: uint8 (m, 32), the pictures' sha256; `labels`: int32 (m,);
    `held_out`: float32 (n, 2), what `nearest.held_out` found of pictures when they were not learnt from.
    """

    features: np.ndarray
    hashes: np.ndarray
    labels: np.ndarray
    held_out: np.ndarray = field(default_factory=lambda: np.empty((0, 2), np.float32))

    def check(self, feature_size: int, classes: int) -> None:
        """Raise ValueError where the arrays do not fit one another or the model."""
        count = len(self.labels)
        shapes = {"features": (count, feature_size), "hashes": (count, 32), "labels": (count,)}
        if any(getattr(self, name).shape != shape for name, shape in shapes.items()) or self.held_out.shape[1:] != (2,):
            raise ValueError("its reference has arrays of other sizes")
        if not ((self.labels >= 0) & (self.labels < classes)).all() or self.hashes.dtype != np.uint8:
            raise ValueError("its reference has other labels")


@dataclass(frozen=True)
class Artifact:
    """A model in memory.

    `temperature` divides logits, one for each way to look at a picture: views.PLAIN and, with `views`, views.SEVERAL. `way`:
    the one that is used unless another is asked for; `views`: names of distortions, see `distortions.parse`.
    """

    labels: tuple[str, ...]
    members: tuple[Member, ...]
    temperature: Mapping[str, float]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    metrics: Mapping[str, Any]
    way: str = PLAIN
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A verified model folder. `artifact` is ready; split and reference are parsed when asked for."""

    folder: Path
    artifact: Artifact
    manifest: Mapping[str, Any]
    _files: Mapping[str, bytes]

    @property
    def labels_text(self) -> bytes:
        """The labels, one a line."""
        return self._files[self.manifest["labels_file"]]

    def whole(self) -> dict[str, bytes]:
        """Return all files that make up the model, by name, sorted."""
        manifest = {key: value for key, value in self.manifest.items() if key != "sha256"}
        return dict(sorted({**self._files, MANIFEST: _canonical(manifest), LABELS: self.labels_text}.items()))

    def split(self) -> list[Placed]:
        """Return where each training picture went."""
        text = self._files[self.manifest["split"]["file"]].decode()
        return [Placed(*map(_unescape, row)) for row in list(csv.reader(io.StringIO(text)))[1:]]

    def reference(self) -> Reference:
        """Return the sample of training features."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            reference = Reference(**load(self._files[self.manifest["reference"]["file"]]))
            reference.check(len(self.artifact.members[0].kernel), len(self.artifact.labels))
        except (ValueError, TypeError, SafetensorError) as error:
            raise ModelRefused(f"the reference of the model cannot be used ({error}); train again") from None
        return reference


def reference_sample(hashes: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return the rows, int64, of a sample of at most 2,000, as even over the classes as can be.

    `hashes`: sha256 in hex; `labels`: int64 (n,). Of each class those with the smallest hashes, so that it is stable.
    """
    order = np.lexsort((np.array(hashes), labels))
    firsts = np.searchsorted(labels[order], labels[order], side="left")
    rank = np.arange(len(order)) - firsts
    return np.sort(order[np.argsort(rank, kind="stable")[:_REFERENCE_ROWS]])


def save(
    folder: Path, artifact: Artifact, reference: Reference, split: Sequence[Placed], split_settings: Mapping[str, Any]
) -> str:
    """Write a model folder, all or nothing; a model that is there stays whole until the new one is.

    Returns the sha256 that the manifest has of itself, in hex, by which a model is told from any other.

    Raises UsageError where the folder holds something else, EnvironmentProblem where it cannot be written.
    """
    from safetensors.numpy import save as tensors

    files: dict[str, bytes] = {}

    def put(kind: str, ending: str, data: bytes) -> str:
        name = f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}.{ending}"
        files[name] = data
        return name

    labels = _labels_text(artifact.labels)
    members = [
        {
            "backbone": {
                "name": member.backbone,
                "weights": member.weights,
                "engine": member.network.engine,
                "file": put("backbone", _ENDINGS.get(member.network.engine, "graph"), member.network.data),
            },
            **({"tuned": put("weights", "safetensors", tensors(dict(member.tuned)))} if member.tuned else {}),
            "view": member.view,
            "preprocessing": member.preprocessing,
            "image_size": member.image_size,
            "head": {
                "kind": "softmax",
                "file": put("head", "safetensors", tensors({"kernel": member.kernel, "bias": member.bias})),
            },
        }
        for member in artifact.members
    ]
    sample = tensors({item.name: np.ascontiguousarray(getattr(reference, item.name)) for item in fields(reference)})
    body = {
        "format": FORMAT,
        "version": VERSION,
        "labels": list(artifact.labels),
        "labels_file": put("labels", "txt", labels),
        "members": members,
        "temperature": dict(artifact.temperature),
        "look": {"way": artifact.way, "views": list(artifact.views)},
        "reference": {"file": put("reference", "safetensors", sample), "rows": len(reference.labels)},
        "split": {"file": put("split", "csv", _split_csv(split)), "settings": dict(split_settings)},
        "settings": dict(artifact.settings),
        "versions": dict(artifact.versions),
        "metrics": dict(artifact.metrics),
    }
    body["files"] = {name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()}
    own_folder(folder)
    with locked(folder / ".lock", "saving a model"):
        manifest = _canonical(body)
        _replace(folder, files, labels, manifest)
    return str(json.loads(manifest)["sha256"])


def _replace(folder: Path, files: dict[str, bytes], labels: bytes, manifest: bytes) -> None:
    kept = set(files) | _listed(folder)
    for name, data in files.items():
        _put(folder / name, data)
    # labels.txt has a fixed name, so after a kill right here it is ahead of the manifest; `_check_labels` knows it by
    # its twin, which is named by its content.
    _put(folder / LABELS, labels)
    write_atomically(folder / MANIFEST, manifest)
    for path in folder.iterdir():
        # The files of the model before stay for now: somebody may have read its manifest a moment ago.
        if (_OUR_NAME.fullmatch(path.name) and path.name not in kept) or _OUR_TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _put(path: Path, data: bytes) -> None:
    """Write a file unless it is there already, as it should be."""
    if path.is_symlink() or not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)


def _listed(folder: Path) -> set[str]:
    """Names of the files of the model that lies in a folder now, empty if there is none that can be read."""
    try:
        return set(_parse(opened(folder, _may_be_in))["files"])
    except (ModelRefused, KeyError, TypeError):
        return set()


def load(folder: Path) -> Loaded:
    """Read a model folder, or a zip of one, and verify every file of it.

    Raises ModelRefused, naming the file, where one is missing, changed, a link, or not ours.
    """
    if not folder.exists():
        raise ModelRefused(f"no model at {folder}; train one first: {_training(folder)}")
    stored = opened(folder, _may_be_in)
    if not stored.has(MANIFEST) and not os.path.lexists(stored.path(MANIFEST)):
        raise ModelRefused(f"{folder} is no model folder, {MANIFEST} is missing; train again or check --model")
    from safetensors import SafetensorError

    try:
        manifest = _parse(stored)
        files = {name: _verified(stored, name, entry) for name, entry in manifest["files"].items()}
        if files[manifest["labels_file"]] != _labels_text(manifest["labels"]):
            raise ValueError("it has other labels")
        _check_labels(stored, files[manifest["labels_file"]])
        return Loaded(folder, _assemble(manifest, files), manifest, files)
    except (KeyError, TypeError, ValueError, AttributeError, SafetensorError) as error:
        raise ModelRefused(f"{folder / MANIFEST} does not fit its files ({error}); train again") from None


def _training(folder: Path) -> str:
    """Say how a model gets into a folder."""
    if folder.name == "model":
        return f"retrain train {shlex.quote(str(folder.parent))}"
    return f"retrain train TF_FILES --model {shlex.quote(str(folder))}"


def _may_be_in(name: str) -> bool:
    return name in (MANIFEST, LABELS) or bool(_OUR_NAME.fullmatch(name))


def _parse(stored: ModelFiles) -> dict[str, Any]:
    """Read the manifest; refuse it unless its own checksum holds and it is written exactly as we write."""
    path = stored.path(MANIFEST)
    data = stored.read(MANIFEST, _LARGEST_MANIFEST)
    try:
        manifest = json.loads(data)
        found, version = manifest["format"], manifest["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ModelRefused(f"{path} is damaged or not ours; train again") from None
    if found != FORMAT or not isinstance(version, int) or version > VERSION:
        raise ModelRefused(
            f"{path} has format {found!r}, version {version!r}; this is for {FORMAT} {VERSION}: update retrain"
        )
    body = {key: value for key, value in manifest.items() if key != "sha256"}
    if _canonical(body) != data:
        raise ModelRefused(f"{path} was changed after it was written; train again")
    names = manifest["files"]
    if not all(_OUR_NAME.fullmatch(name) for name in names):
        raise ModelRefused(f"{path} lists a file by a name that is not ours; train again")
    return manifest


def _canonical(body: Mapping[str, Any]) -> bytes:
    """Serialise a manifest, its own checksum included: one way to write each manifest."""
    plain = json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False)
    checksum = hashlib.sha256(plain.encode()).hexdigest()
    return (
        json.dumps({**body, "sha256": checksum}, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n"
    ).encode()


def _verified(stored: ModelFiles, name: str, entry: Mapping[str, Any]) -> bytes:
    data = stored.read(name, entry["bytes"])
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ModelRefused(f"{stored.path(name)} was changed after it was saved; train again")
    return data


def _check_labels(stored: ModelFiles, expected: bytes) -> None:
    """labels.txt must say what the manifest says, or what the twin of an interrupted save says."""
    found = stored.read(LABELS, _LARGEST_MANIFEST)
    twin = f"labels-{hashlib.sha256(found).hexdigest()[:16]}.txt"
    if found != expected and not (stored.has(twin) and stored.read(twin, _LARGEST_MANIFEST) == found):
        raise ModelRefused(f"{stored.path(LABELS)} was changed after it was saved; train again")


def _assemble(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> Artifact:
    from safetensors.numpy import load as tensors

    labels = tuple(manifest["labels"])
    members = []
    for row in manifest["members"]:
        head = tensors(files[row["head"]["file"]])
        if head["kernel"].shape[1:] != (len(labels),) or head["bias"].shape != (len(labels),):
            raise ValueError(f"{len(labels)} labels, but a head for {head['bias'].shape}")
        backbone = row["backbone"]
        members.append(
            Member(
                backbone["name"], backbone["weights"], row["view"], row["preprocessing"], row["image_size"],
                Network(backbone["engine"], files[backbone["file"]]), head["kernel"], head["bias"],
                tensors(files[row["tuned"]]) if "tuned" in row else {},
            )
        )  # fmt: skip
    if not members or not labels:
        raise ValueError("no members or no labels")
    look = manifest.get("look", {"way": PLAIN, "views": []})  # models of before had one way
    if (
        look["way"] not in (PLAIN, SEVERAL)
        or len(look["views"]) > _MOST_VIEWS
        or not all(map(_is_distortion, look["views"]))
    ):
        raise ValueError("it looks at pictures in a way that this version cannot")
    ways = {PLAIN, look["way"]} | ({SEVERAL} if look["views"] else set())
    if not all(manifest["temperature"][way] > 0 for way in ways) or (look["way"] == SEVERAL and not look["views"]):
        raise ValueError("a temperature is missing")
    if not {manifest[kind]["file"] for kind in ("split", "reference")} <= set(files):
        raise ValueError("split or reference is missing")
    return Artifact(
        labels, tuple(members), manifest["temperature"], manifest["settings"], manifest["versions"], manifest["metrics"],
        look["way"], tuple(look["views"]),
    )  # fmt: skip


def _is_distortion(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(distortions.parse(name))
    except UsageError:
        return False


def _labels_text(labels: Sequence[str]) -> bytes:
    return "".join(f"{_escape(label)}\n" for label in labels).encode()


def _split_csv(split: Sequence[Placed]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Placed._fields)
    writer.writerows(sorted(tuple(map(_escape, row)) for row in split))
    return text.getvalue().encode()


def _escape(text: str) -> str:
    """Folder names may hold bytes that are no UTF-8, and newlines; write them so that they can be told apart again."""
    return text.replace("\\", "\\\\").encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


def _unescape(text: str) -> str:
    known = {"\\\\": "\\", "\\n": "\n", "\\r": "\r"}
    return re.sub(r"\\\\|\\n|\\r|\\u([0-9a-f]{4})", lambda match: known.get(match[0]) or chr(int(match[1], 16)), text)
