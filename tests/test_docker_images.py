"""What goes into the images, as far as that shows without building them; test_containers.py runs them."""

import ast
import configparser
import itertools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
LOCKS = sorted(DOCKER.glob("requirements-*.txt"))
IMPORT_NAMES = {
    "pillow": "PIL",
    "ai-edge-litert": "ai_edge_litert",
    "python-multipart": "python_multipart",
    "prometheus-client": "prometheus_client",
}


def pins(lock: Path) -> dict[str, set[str]]:
    """Name -> versions; more than one where they differ between Pythons."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_has_one_version_and_hashes(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if line and not line.startswith("#")]
    for above, line in itertools.pairwise(lines):
        assert line.startswith("    --hash=sha256:") or re.match(r"[a-z0-9-]+==", line), line
        assert above.endswith("\\") == line.startswith("    --hash"), above
    assert len(pins(lock)) > 1 and lines[-1].startswith("    --hash")


def test_the_image_that_trains_has_all_that_the_package_asks_for() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    asked = setup["options"]["install_requires"] + setup["options.extras_require"]["serve"]
    names = re.findall(r"^([a-z0-9-]+)", asked, re.MULTILINE)
    assert set(names) - set(pins(DOCKER / "requirements-train.txt")) == set() and len(names) > 14


def test_both_images_have_the_same_versions() -> None:
    train, runtime = pins(DOCKER / "requirements-train.txt"), pins(DOCKER / "requirements-runtime.txt")
    assert {name: versions for name, versions in runtime.items() if train.get(name) != versions} == {}
    assert not {"tensorflow", "keras", "h5py", "grpcio"} & set(runtime)


def test_the_small_image_has_what_labelling_imports() -> None:
    modules = ("label", "model", "artifact", "runner", "images", "views", "storage", "quiet", "classify", "serve", "cli")
    files = [file for name in modules for file in (ROOT / "retrain").glob(f"{name}*")]
    sources = [source for file in files for source in (sorted(file.glob("*.py")) if file.is_dir() else [file])]
    imported = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    there = {IMPORT_NAMES.get(name, name) for name in pins(DOCKER / "requirements-runtime.txt")}
    assert imported - there - sys.stdlib_module_names == {"retrain"} and {"numpy", "PIL", "click", "uvicorn"} <= imported


def test_what_the_images_copy_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert {re.sub(r"requirements-.*", "requirements-*.txt", word) for word in copied} == sent
    assert all(list(ROOT.glob(pattern)) for pattern in sent)
