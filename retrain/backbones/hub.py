"""TF Hub modules: a table of well-known ones, and whatever a handle points to."""

import re
import urllib.parse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from retrain.backbones import download, saved_model
from retrain.backbones.backbone import Backbone
from retrain.errors import EnvironmentProblem, UsageError
from retrain.progress import Progress

_GOOGLE, _TENSORFLOW = "https://tfhub.dev/google/", "https://tfhub.dev/tensorflow/"
LOCAL = "saved-model:"  # what the name of a SavedModel of this machine begins with
ARCHIVES = (".tar.gz", ".tgz", ".tar")


def _row(name: str, handle: str, image_size: int, feature_size: int, parameters: float) -> Backbone:
    return Backbone(
        name=name,
        image_size=image_size,
        feature_size=feature_size,
        licence="Apache-2.0",
        origin=handle,
        weights=partial(_fetched, name, handle),
        build=saved_model.build,
        fetch=partial(_fetch, handle),
        family="TF Hub",
        parameters=parameters,
        values=saved_model.VALUES,
    )


def _fetched(name: str, handle: str) -> Path:
    folder = download.cached(handle)
    if folder is None:
        raise EnvironmentProblem(f"{name} is not on this machine yet; run: retrain backbones fetch {name}")
    return folder


def _fetch(handle: str, progress: Progress) -> None:
    if download.cached(handle) is None:
        download.fetch(handle, progress)


# The handles ask for pictures with values from 0 to 1, as TF Hub's contract for images says.
ROWS = (
    _row("mobilenet-v2", f"{_GOOGLE}imagenet/mobilenet_v2_100_224/feature_vector/5", 224, 1280, 2.26),
    _row("mobilenet-v2-140", f"{_GOOGLE}imagenet/mobilenet_v2_140_224/feature_vector/5", 224, 1792, 4.36),
    _row("mobilenet-v3-small", f"{_GOOGLE}imagenet/mobilenet_v3_small_100_224/feature_vector/5", 224, 1024, 1.53),
    _row("mobilenet-v3-large", f"{_GOOGLE}imagenet/mobilenet_v3_large_100_224/feature_vector/5", 224, 1280, 4.23),
    _row("efficientnet-lite3", f"{_TENSORFLOW}efficientnet/lite3/feature-vector/2", 280, 1280, 6.99),
    _row("efficientnet-lite4", f"{_TENSORFLOW}efficientnet/lite4/feature-vector/2", 300, 1280, 11.84),
    _row("efficientnet-b0", f"{_TENSORFLOW}efficientnet/b0/feature-vector/1", 224, 1280, 4.05),
    _row("efficientnet-b3", f"{_TENSORFLOW}efficientnet/b3/feature-vector/1", 300, 1536, 10.78),
    _row("efficientnet-v2-b0", f"{_GOOGLE}imagenet/efficientnet_v2_imagenet1k_b0/feature_vector/2", 224, 1280, 5.92),
    _row("efficientnet-v2-b3", f"{_GOOGLE}imagenet/efficientnet_v2_imagenet21k_ft1k_b3/feature_vector/2", 300, 1536, 12.93),
    _row("efficientnet-v2-s", f"{_GOOGLE}imagenet/efficientnet_v2_imagenet1k_s/feature_vector/2", 384, 1280, 20.33),
    _row("inception-v3", f"{_GOOGLE}imagenet/inception_v3/feature_vector/5", 299, 2048, 21.8),
    _row("resnet-50-v2", f"{_GOOGLE}imagenet/resnet_v2_50/feature_vector/5", 224, 2048, 23.56),
    _row("bit-m-r50x1", f"{_GOOGLE}bit/m-r50x1/1", 224, 2048, 0.0),
)


def is_handle(text: str) -> bool:
    """True for an address or a path, as opposed to the name of a row."""
    return "://" in text or "/" in text or "\\" in text or text.endswith(ARCHIVES) or Path(text).is_dir()


def from_handle(handle: str, image_size: int | None, progress: Progress) -> Backbone:
    """Return the backbone that a handle points to: an http(s) address, a SavedModel folder, a .tar.gz of one.

    An address is downloaded here, since only the module itself knows its image size. Raises UsageError for what is none
    of these, EnvironmentProblem where it cannot be had.
    """
    find = _finder(handle, progress)
    folder = find()
    size, told_by = saved_model.image_size(folder, handle if "://" in handle else Path(handle).name)
    if image_size is None and size and told_by == "its name":
        progress.note(f"{handle}: taking {size} pixels, by its name; give --image-size where that is wrong")
    elif image_size is None and not size:
        progress.note(
            f"{handle} does not say what image size it expects: taking {saved_model.FALLBACK_SIZE};"
            " give --image-size where its documentation says otherwise"
        )
    return Backbone(
        name=_name(handle),
        image_size=image_size or size or saved_model.FALLBACK_SIZE,
        feature_size=0,
        licence="as the module says",
        origin=_name(handle),
        weights=find,
        build=saved_model.build,
        family="handle",
        values=saved_model.VALUES,
    )


def _finder(handle: str, progress: Progress) -> Callable[[], Path]:
    if re.match(r"https?://", handle):
        return lambda: download.cached(handle) or download.fetch(handle, progress)
    if "://" in handle:
        scheme = handle.partition("://")[0]
        raise UsageError(f"--backbone {handle}: addresses with {scheme}:// are not read; download it and give the folder")
    path = Path(handle)
    if not path.exists():
        raise UsageError(f"--backbone {handle} does not exist; give a name (see: retrain backbones), a URL or a folder")
    if path.is_file():
        if not handle.endswith(ARCHIVES):
            raise UsageError(f"--backbone {handle} is a file; give a SavedModel folder or a .tar.gz of one")
        return lambda: download.unpack(path)
    if not saved_model.is_saved_model(path):
        raise UsageError(f"--backbone {handle} is no SavedModel folder: it has no saved_model.pb; check the path")
    return lambda: path


def _name(handle: str) -> str:
    """An address names itself; of a path only the last part, since the model must not depend on where things lay."""
    if "://" in handle:
        parts = urllib.parse.urlsplit(handle)  # without a password or a signature that may be in it
        return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return f"{LOCAL}{Path(handle).resolve().name}"
