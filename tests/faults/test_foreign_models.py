"""Files of other programs, and zips made to do harm, as `--model`: refused with exit code 5 and one line, before they do it.

32  .keras and .h5 with a Lambda, a pickle, a SavedModel that writes       FROM_OTHERS; that they are live: below
    .keras with a TFSMLayer, with words in a file; HDF5 that leads out     FROM_OTHERS
    shapes of terabytes, in HDF5 and in a model of ours                    FROM_OTHERS, BY_HAND
33  names that lead out, links, devices, 10 GB of zeros, said and unsaid,
    a million members, by zip64 as well, twins, a tar                      BY_HAND
    the same where they can be seen without a process                      tests/test_model_files.py

Each is given to a process of its own, under strace: it opens nothing to write, starts nothing, asks no network, does not
read what the trap points to, and takes little memory.
"""

import hashlib
import io
import json
import os
import pickle
import re
import shutil
import stat
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY_SIZE
from tests.drawing import COLOURS, draw
from tests.faults.disturbed import can_trace
from tests.test_artifact import listed, manifest_of, signed

pytestmark = [pytest.mark.faults, pytest.mark.skipif(not can_trace(), reason="strace cannot trace here")]

MEGABYTE, GIGABYTE = 2**20, 2**30
MOST_MEMORY = 250 * MEGABYTE  # 500 is what is promised
AT_ONCE = 3
CALLS = "%file,%network,execve,fork,vfork,ftruncate"
# What the system reports for a child counts the memory of who started it, so a small process does.
STARTER = """
import os, sys
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(usage.ru_maxrss, file=open(os.environ["REPORT"], "w"))
sys.exit(os.waitstatus_to_exitcode(status))
"""
# Calls that change something; of openat, those that may write.
CHANGING = re.compile(
    r"(?:(?:mkdir|mknod|rename|unlink|rmdir|link|symlink|chmod|chown|truncate|ftruncate|utimensat|setxattr)\w*\(|"
    r"open(?:at)?\(.*O_(?:WRONLY|RDWR|CREAT|TRUNC))"
)
HARMLESS = re.compile(r'"/dev/(?:null|tty)"|"/dev/shm/|"/proc/self/')
CONNECTING = re.compile(r"(?:connect|sendto|bind)\(.*AF_INET")


@dataclass(frozen=True)
class Trap:
    """A folder with a model to be refused and a file `secret` that nobody may read; a sprung trap leaves `canary`."""

    folder: Path

    @property
    def canary(self) -> Path:
        return self.folder / "canary"

    @property
    def secret(self) -> Path:
        return self.folder / "secret"

    def file(self, ending: str) -> Path:
        return self.folder / f"given{ending}"


# --- what other programs make


def with_lambda(trap: Trap, ending: str) -> Path:
    import keras

    pixels = keras.Input((2,))
    # The path is in its code: defaults and closures do not survive in the newer format.
    layer = keras.layers.Lambda(eval(f"lambda x: (open({str(trap.canary)!r}, 'w').close(), x)[1]"), output_shape=(2,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        keras.Model(pixels, layer(pixels)).save(trap.file(ending))
    trap.canary.unlink(missing_ok=True)
    return trap.file(ending)


def keras_file(trap: Trap) -> Path:
    return with_lambda(trap, ".keras")


def h5_file(trap: Trap) -> Path:
    return with_lambda(trap, ".h5")


def configured(trap: Trap, layer: str, **config: object) -> Path:
    """A .keras file of one layer that names a path."""
    named = {"module": "keras.layers", "class_name": layer, "config": {"name": "x", "trainable": False, **config}}
    whole = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": [named]}}
    with zipfile.ZipFile(trap.file(".keras"), "w") as file:
        file.writestr("metadata.json", json.dumps({"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}))
        file.writestr("config.json", json.dumps(whole))
    return trap.file(".keras")


def keras_with_a_saved_model(trap: Trap) -> Path:
    return configured(trap, "TFSMLayer", filepath=str(trap.secret), call_endpoint="serve")


def keras_with_a_file_of_words(trap: Trap) -> Path:
    return configured(trap, "StringLookup", vocabulary=str(trap.secret))


def h5_that_leads_out(trap: Trap) -> Path:
    import h5py

    with h5py.File(trap.file(".h5"), "w") as file:
        file["link"] = h5py.ExternalLink(str(trap.secret), "/")
        file.create_dataset("outside", (4,), "u1", external=[(str(trap.secret), 0, 4)])
        layout = h5py.VirtualLayout((4,), "u1")
        layout[:] = h5py.VirtualSource(str(trap.secret), "x", (4,))
        file.create_virtual_dataset("virtual", layout)
    return trap.file(".h5")


def h5_of_terabytes(trap: Trap) -> Path:
    import h5py

    with h5py.File(trap.file(".h5"), "w") as file:
        file.create_dataset("model_weights/kernel", (2**20, 2**22), "f4", chunks=(1024, 1024), compression="gzip")
    return trap.file(".h5")


class Sprung:
    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self._path), "w")


def pickled(trap: Trap) -> Path:
    trap.file(".pkl").write_bytes(pickle.dumps(Sprung(trap.canary)))
    return trap.file(".pkl")


def torch_zip(trap: Trap) -> Path:
    """As torch.save writes it: a zip with a pickle."""
    with zipfile.ZipFile(trap.file(".pt"), "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Sprung(trap.canary)))
    return trap.file(".pt")


def pickle_as_a_head(trap: Trap) -> Path:
    """A whole model of ours, whose head is a pickle, and every checksum fits."""
    return with_head(trap, pickle.dumps(Sprung(trap.canary)))


def saved_model(trap: Trap) -> Path:
    import tensorflow as tf

    path = str(trap.canary)

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.float32, "x")])
        def __call__(self, x: object) -> object:
            tf.io.write_file(path, "sprung")
            return x

    tf.saved_model.save(Module(), str(trap.file("")))
    return trap.file("")


FROM_OTHERS = (
    keras_file, h5_file, keras_with_a_saved_model, keras_with_a_file_of_words, h5_that_leads_out, h5_of_terabytes, pickled,
    torch_zip, saved_model,
)  # fmt: skip


# --- zips and models made by hand


def ours(trap: Trap) -> dict[str, bytes]:
    """The files of a model that labels."""
    folder = trap.folder.parent / "model"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.startswith(".")}


def with_head(trap: Trap, head: bytes) -> Path:
    return with_file(trap, "head", lambda _: head)


def with_file(trap: Trap, kind: str, change: Callable[[bytes], bytes]) -> Path:
    """A model folder of ours with another file of that kind; whoever made it has renewed every checksum."""
    folder = shutil.copytree(trap.folder.parent / "model", trap.file(""))
    before, body = listed(folder, kind).name, manifest_of(folder)
    data = change((folder / before).read_bytes())
    name = f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}{Path(before).suffix}"
    del body["files"][before]
    body["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_bytes(signed(json.loads(json.dumps(body).replace(before, name))))
    (folder / before).unlink()
    (folder / name).write_bytes(data)
    return folder


def network_that_wants(side: int) -> Callable[[Trap], Path]:
    """A model of ours whose network takes larger pictures than the manifest says."""
    shape = lambda size: np.array([1, size, size, 3], "<i4").tobytes()  # noqa: E731

    def change(data: bytes) -> bytes:
        assert shape(TINY_SIZE) in data
        return data.replace(shape(TINY_SIZE), shape(side))

    return lambda trap: with_file(trap, "backbone", change)


def head_of_terabytes(trap: Trap) -> Path:
    said = {"kernel": {"dtype": "F32", "shape": [2**20, 2**20], "data_offsets": [0, 2**42]}}
    text = json.dumps(said).encode()
    return with_head(trap, struct.pack("<Q", len(text)) + text)


def head_whose_list_is_of_gigabytes(trap: Trap) -> Path:
    return with_head(trap, struct.pack("<Q", 2**40) + b"{}")


def zipped(trap: Trap, files: dict[str, bytes], **modes: int) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(trap.file(".zip"), "w") as file:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            file.writestr(entry, data)
    return trap.file(".zip")


def beside(name: str, data: bytes = b"sprung", mode: int = stat.S_IFREG | 0o644) -> Callable[[Trap], Path]:
    """A whole model, and one member more; TRAP in its name is the folder."""

    def make(trap: Trap) -> Path:
        real = name.replace("TRAP", str(trap.folder))
        return zipped(trap, ours(trap) | {real: data.replace(b"TRAP", os.fsencode(trap.folder))}, **{real: mode})

    return make


def twice(trap: Trap) -> Path:
    path = zipped(trap, ours(trap))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("labels.txt", b"other\n")
    return path


def tar(trap: Trap) -> Path:
    with tarfile.open(trap.file(".tar"), "w") as file:
        kinds = {"../canary": tarfile.REGTYPE, "a": tarfile.SYMTYPE, "b": tarfile.LNKTYPE, "c": tarfile.CHRTYPE}
        for name, kind in kinds.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, str(trap.secret)
            file.addfile(entry, io.BytesIO())
    return trap.file(".tar")


@dataclass(frozen=True)
class Member:
    """A member of a zip, and what the zip says of its length."""

    name: str
    packed: bytes
    said: int
    crc: int = 0

    def head(self, central: bool, at: int = 0) -> bytes:
        large = self.said >= 2**32 - 1
        extra = struct.pack("<HHQ", 1, 8, self.said) if large else b""
        common = struct.pack("<HHHHHIII", 45, 0, 8, 0, 33, self.crc, len(self.packed), 2**32 - 1 if large else self.said)
        lengths = struct.pack("<HH", len(self.name), len(extra))
        if central:
            rest = struct.pack("<HHHII", 0, 0, 0, (stat.S_IFREG | 0o644) << 16, at)
            return b"PK\x01\x02" + struct.pack("<H", 45) + common + lengths + rest + self.name.encode() + extra
        return b"PK\x03\x04" + common + lengths + self.name.encode() + extra


def by_hand(trap: Trap, members: list[Member]) -> Path:
    data, rows = b"", b""
    for member in members:
        rows += member.head(True, len(data))
        data += member.head(False) + member.packed
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(members), len(members), len(rows), len(data), 0)
    trap.file(".zip").write_bytes(data + rows + end)
    return trap.file(".zip")


def zeros(length: int) -> bytes:
    """Zeros as deflate packs them, without packing them all: a piece that depends on nothing before it, many times."""
    packer, piece = zlib.compressobj(9, zlib.DEFLATED, -15), 64 * MEGABYTE
    first = packer.compress(bytes(piece)) + packer.flush(zlib.Z_FULL_FLUSH)
    return first * (length // piece) + packer.flush(zlib.Z_FINISH)


def of_ten_gigabytes(trap: Trap, says_so: bool) -> Path:
    files = ours(trap)
    packed = {name: zlib.compress(data, wbits=-15) for name, data in files.items()}
    said = {name: len(data) for name, data in files.items()}
    name = next(name for name in files if name.startswith("head-"))
    packed[name] = zeros(10 * GIGABYTE)
    if says_so:
        said[name] = 10 * GIGABYTE
    return by_hand(trap, [Member(one, packed[one], said[one], zlib.crc32(files[one])) for one in files])


def ten_gigabytes_said(trap: Trap) -> Path:
    return of_ten_gigabytes(trap, says_so=True)


def ten_gigabytes_unsaid(trap: Trap) -> Path:
    return of_ten_gigabytes(trap, says_so=False)


def a_million(trap: Trap, files: int, length: int) -> Path:
    """A list of a million members, which zip64 states; `files`, `length`: what the old record says of it."""
    count, row = 1_000_000, Member("labels.txt", b"", 0)
    data = row.head(False)
    rows = row.head(True) * count
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, len(rows), len(data))
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(data) + len(rows), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, files, files, length, len(data), 0)
    trap.file(".zip").write_bytes(data + rows + end64 + locator + end)
    return trap.file(".zip")


def a_million_by_zip64(trap: Trap) -> Path:
    return a_million(trap, 2**16 - 1, 2**32 - 1)


def a_million_by_zip64_that_the_old_record_hides(trap: Trap) -> Path:
    return a_million(trap, 1, 56)


BY_HAND: dict[str, Callable[[Trap], Path]] = {
    "a name that leads up": beside("../canary"),
    "an absolute name": beside("TRAP/canary"),
    "a folder": beside("sub/", b"", stat.S_IFDIR | 0o755),
    "a link": beside("link", b"TRAP/secret", stat.S_IFLNK | 0o777),
    "a link in place of a head": beside("head-0123456789abcdef.safetensors", b"TRAP/secret", stat.S_IFLNK | 0o777),
    "a device": beside("zero", b"", stat.S_IFCHR | 0o666),
    "a twin by case": beside("Labels.txt"),
    "the same name twice": twice,
    "a network of gigabytes": network_that_wants(20_000),
    "a network of terabytes": network_that_wants(300_000),
    **{
        make.__name__: make
        for make in (
            tar, pickle_as_a_head, head_of_terabytes, head_whose_list_is_of_gigabytes, ten_gigabytes_said,
            ten_gigabytes_unsaid, a_million_by_zip64, a_million_by_zip64_that_the_old_record_hides,
        )
    },
}  # fmt: skip


# --- what is promised


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    errors: list[str]
    memory: int
    trace: list[str]


def ended(folder: Path, *words: object) -> Ended:
    """Run `retrain` under strace in a folder of its own."""
    folder.mkdir()
    trace, report = folder / "trace", folder / "memory"
    strace = [shutil.which("strace"), "-f", "--seccomp-bpf", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-o", trace]
    line = [sys.executable, "-I", "-S", "-c", STARTER, *strace, sys.executable, "-m", "retrain", *words]
    environment = {**os.environ, "REPORT": str(report), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [str(word) for word in line], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    kilobytes = int(report.read_text())
    return Ended(done.returncode, done.stdout, done.stderr.splitlines(), kilobytes * 1024, trace.read_text().splitlines())


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns) for path, status in found.items()}


def harm(run: Ended) -> list[str]:
    """What a process did that reading a model does not take: each line of the trace."""
    calls = [line.split(maxsplit=1)[1] for line in run.trace]
    started = [call for call in calls if call.startswith("execve(")][1:]
    changed = [call for call in calls if CHANGING.match(call) and not HARMLESS.search(call)]
    return started + changed + [call for call in calls if CONNECTING.match(call)]


@pytest.fixture(scope="module")
def room(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model to make others of, and a picture."""
    folder = tmp_path_factory.mktemp("foreign")
    shutil.copytree(trained / "model", folder / "model")
    draw(folder / "pictures" / "one.png", COLOURS["red"], 1, (40, 40))
    return folder


@pytest.fixture(scope="module")
def traps(room: Path) -> dict[str, tuple[Trap, Path]]:
    """All of them, each in a folder of its own."""
    made = {}
    for number, (name, make) in enumerate({**{one.__name__: one for one in FROM_OTHERS}, **BY_HAND}.items()):
        trap = Trap(room / f"trap{number}")
        trap.folder.mkdir()
        trap.secret.write_text("secret\n")
        made[name] = (trap, make(trap))
    return made


def check_refused(run: Ended, trap: Trap, path: Path) -> None:
    assert run.code == 5 and run.out == "", run
    (said,) = run.errors
    assert said.startswith("retrain: ") and (str(path) in said or "the backbone is no" in said), said
    assert harm(run) == []
    assert not any(f'"{trap.secret}"' in line for line in run.trace)
    assert run.memory < MOST_MEMORY, f"{run.memory // MEGABYTE} MB"


def test_every_model_that_is_none_of_ours_is_refused_and_does_nothing(
    traps: dict[str, tuple[Trap, Path]], room: Path, tmp_path: Path
) -> None:
    """Numbers 32 and 33: `label`."""
    picture, before = room / "pictures" / "one.png", everything(room)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {
            name: pool.submit(ended, tmp_path / trap.folder.name, "label", picture, "--model", path)
            for name, (trap, path) in traps.items()
        }
    problems = {}
    for name, run in runs.items():
        print(f"{name}: {run.result().memory // MEGABYTE} MB, {run.result().errors}")
        try:
            check_refused(run.result(), *traps[name])
        except AssertionError as error:
            problems[name] = str(error)[:1500]
    assert problems == {}
    assert everything(room) == before
    assert max(run.result().memory for run in runs.values()) > 10 * MEGABYTE  # it was measured


def test_other_commands_refuse_them_as_well(traps: dict[str, tuple[Trap, Path]], room: Path, tmp_path: Path) -> None:
    """Numbers 32 and 33."""
    before, pictures = everything(room), room / "pictures"
    lines: dict[str, tuple[object, ...]] = {
        "classify": (pictures, room / "out"),
        "explain": (pictures / "one.png",),
        "evaluate": (room,),
        "serve": (),
        "export": (room, "--format", "zip"),
    }
    names = ("keras_file", "a name that leads up", "ten_gigabytes_unsaid", "a_million_by_zip64_that_the_old_record_hides")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        runs = {
            (verb, name): pool.submit(ended, tmp_path / f"{verb} {name}", verb, *rest, "--model", traps[name][1])
            for verb, rest in lines.items()
            for name in names
        }
    for (_, name), run in runs.items():
        check_refused(run.result(), *traps[name])
    assert everything(room) == before


# --- whether all that would find a mistake


def test_the_traps_are_live(traps: dict[str, tuple[Trap, Path]]) -> None:
    """What refuses them could have sprung them: the programs that they are made for do."""
    import keras
    import tensorflow as tf

    springs: dict[str, Callable[[Path], object]] = {
        "keras_file": lambda path: keras.saving.load_model(path, safe_mode=False)(np.zeros((1, 2), np.float32)),
        "h5_file": lambda path: keras.saving.load_model(path, safe_mode=False)(np.zeros((1, 2), np.float32)),
        "pickled": lambda path: pickle.loads(path.read_bytes()).close(),
        "torch_zip": lambda path: pickle.loads(zipfile.ZipFile(path).read("archive/data.pkl")).close(),
        "pickle_as_a_head": lambda path: pickle.loads(next(path.glob("head-*")).read_bytes()).close(),
        "saved_model": lambda path: tf.saved_model.load(str(path))(tf.zeros((1,))),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, spring in springs.items():
            trap, path = traps[name]
            assert not trap.canary.exists()
            spring(path)
            assert trap.canary.exists(), name
            trap.canary.unlink()


def test_the_zips_are_what_they_are_said_to_be(traps: dict[str, tuple[Trap, Path]]) -> None:
    for name in ("a_million_by_zip64", "a_million_by_zip64_that_the_old_record_hides"):
        with traps[name][1].open("rb") as file:
            assert zipfile._EndRecData(file)[3] == 1_000_000  # type: ignore[attr-defined]
    _, path = traps["ten_gigabytes_unsaid"]
    assert path.stat().st_size < 20 * MEGABYTE
    with zipfile.ZipFile(traps["ten_gigabytes_said"][1]) as file:
        assert max(entry.file_size for entry in file.infolist()) == 10 * GIGABYTE
    unpacker = zlib.decompressobj(-15)
    assert len(unpacker.decompress(zeros(256 * MEGABYTE))) == 256 * MEGABYTE and unpacker.eof


def test_a_process_that_does_harm_is_found(room: Path, tmp_path: Path) -> None:
    """A command that is to write, one that is to label, and one that cannot be traced to have started another."""
    pictures = room / "pictures"
    wrote = ended(tmp_path / "one", "classify", pictures, tmp_path / "out", "--model", room / "model")
    assert wrote.code == 0 and any(str(tmp_path / "out") in call for call in harm(wrote))
    read = ended(tmp_path / "two", "label", pictures / "one.png", "--model", room / "model")
    assert read.code == 0 and any(f'"{room}/model/manifest.json"' in line for line in read.trace)
    started = Ended(0, "", [], 0, ['1 execve("/usr/bin/python3", ["python3"]) = 0', '2 execve("/bin/sh", ["sh"]) = 0'])
    assert harm(started) == ['execve("/bin/sh", ["sh"]) = 0']
    assert harm(Ended(0, "", [], 0, ["1 connect(3, {sa_family=AF_INET, sin_port=htons(80)}, 16) = 0"])) != []
