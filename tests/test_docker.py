"""What makes the images, and the scripts that run them, as far as that shows without an engine."""

import ast
import configparser
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SCRIPTS = sorted(DOCKER.glob("*.sh"))
LOCKS = sorted(DOCKER.glob("requirements-*.txt"))
IMPORT_NAMES = {"pillow": "PIL", "ai-edge-litert": "ai_edge_litert"}

# Answers what the scripts ask an engine, and writes what it is to run, an argument a line.
ENGINE = """#!/bin/sh
case $1 in
    info) echo "$ANSWER" ;;
    image) [ "$3" != absent:runtime ] ;;
    run) umask; for argument in "$@"; do printf '%s\\n' "$argument"; done ;;
esac
"""


# What goes into the images


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
    asked = re.findall(r"^([a-z0-9-]+)", setup["options"]["install_requires"], re.MULTILINE)
    assert set(asked) - set(pins(DOCKER / "requirements-train.txt")) == set() and len(asked) > 10


def test_both_images_have_the_same_versions() -> None:
    train, runtime = pins(DOCKER / "requirements-train.txt"), pins(DOCKER / "requirements-runtime.txt")
    assert {name: versions for name, versions in runtime.items() if train.get(name) != versions} == {}
    assert not {"tensorflow", "keras", "h5py", "grpcio"} & set(runtime)


def test_the_small_image_has_what_labelling_imports() -> None:
    modules = ("label", "model", "artifact", "runner", "images", "views", "storage", "quiet", "classify", "cli")
    files = [file for name in modules for file in (ROOT / "retrain").glob(f"{name}*")]
    sources = [source for file in files for source in (sorted(file.glob("*.py")) if file.is_dir() else [file])]
    imported = set()
    for node in (node for source in sources for node in ast.walk(ast.parse(source.read_text()))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").partition(".")[0])
    there = {IMPORT_NAMES.get(name, name) for name in pins(DOCKER / "requirements-runtime.txt")}
    assert imported - there - sys.stdlib_module_names == {"retrain"} and {"numpy", "PIL", "click"} <= imported


def test_what_the_images_copy_is_sent_to_the_engine() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        word
        for words in re.findall(r"^COPY (?!--from)(.*) \S+$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
        for word in words.split()
    }
    assert {re.sub(r"requirements-.*", "requirements-*.txt", word) for word in copied} == sent
    assert all(list(ROOT.glob(pattern)) for pattern in sent)


# The scripts


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """Stands in for docker and podman."""
    file = tmp_path / "engine"
    file.write_text(ENGINE)
    file.chmod(0o755)
    return file


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with pictures, a model and names that need quoting."""
    work = tmp_path / 'my work, "all"'
    for folder in ("tf files/data/elsa", "tf files/model", "to label"):
        (work / folder).mkdir(parents=True)
    (work / "to label" / "a b.jpg").touch()
    (work / "tested").mkdir()
    return work


def run(script: str, *arguments: object, engine: Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script; TZ and the like do not matter to it."""
    line = [str(DOCKER / f"{script}.sh"), *map(str, arguments)]
    known = {"PATH": os.environ["PATH"], "CONTAINER_ENGINE": str(engine), "ANSWER": ""}
    return subprocess.run(
        line,
        cwd=cwd,
        env=known | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def mount(path: Path, *more: str) -> str:
    quoted = str(path).replace('"', '""')
    return ",".join(["type=bind", f'"source={quoted}"', f'"target={quoted}"', *more])


def told(done: subprocess.CompletedProcess[str]) -> tuple[list[str], list[str]]:
    """What the engine was told: its own options, and the command line that follows them."""
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[1:]
    at = words.index("--entrypoint")
    assert words[at + 1] == "/bin/sh" and words[at + 3] == "-c"
    return words[:at], [words[at + 2], *words[at + 6 :]]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    assert len(SCRIPTS) >= 4
    done = subprocess.run(
        ["shellcheck", "-x", *SCRIPTS, ROOT / ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_train_gives_the_folder_to_write_and_the_pictures_to_read(engine: Path, work: Path) -> None:
    options, line = told(run("train", "tf files", "--folds", "5", engine=engine, cwd=work))
    assert options[:5] == ["run", "--rm", "--read-only", "--network", "none"]
    mounts = [options[at + 1] for at, word in enumerate(options) if word == "--mount"]
    assert mounts == [mount(work / "tf files"), mount(work / "tf files/data", "readonly")]
    assert line == ["retrain:train", "train", str(work / "tf files"), "--folds", "5"]


def test_train_follows_links_of_the_data_and_of_single_classes(engine: Path, work: Path) -> None:
    (work / "linked/data").mkdir(parents=True)
    (work / "linked/data/elsa").symlink_to(work / "tf files/data/elsa")
    (work / "whole").mkdir()
    (work / "whole/data").symlink_to("../tf files/data")
    for name, target in (("linked", "tf files/data/elsa"), ("whole", "tf files/data")):
        options, _ = told(run("train", name, engine=engine, cwd=work))
        assert mount(work / target, "readonly") in options, name


def test_paths_among_the_options_of_train_are_offered_and_made_absolute(engine: Path, work: Path) -> None:
    given = (
        "--test-dir",
        "tested",
        "--weights=to label/a b.jpg",
        "--model",
        "new/model",
        "--backbone",
        "efficientnet-lite1",
    )
    options, line = told(run("train", "tf files", *given, engine=engine, cwd=work))
    assert mount(work / "tested", "readonly") in options and mount(work / "to label/a b.jpg", "readonly") in options
    assert mount(work / "new/model") in options and (work / "new/model").is_dir()
    assert line[3:] == [
        f"--test-dir={work / 'tested'}", f"--weights={work / 'to label/a b.jpg'}", f"--model={work / 'new/model'}",
        "--backbone=efficientnet-lite1",
    ]  # fmt: skip


def test_train_keeps_backbones_where_it_is_told_to(engine: Path, work: Path) -> None:
    done = run("train", "tf files", engine=engine, cwd=work, RETRAIN_CACHE_DIR="kept", RETRAIN_NETWORK="bridge")
    options, _ = told(done)
    assert mount(work / "kept") in options and options[options.index("--env") + 1] == f"RETRAIN_CACHE_DIR={work / 'kept'}"
    assert options[options.index("--network") + 1] == "bridge"


def test_label_gives_the_model_and_each_picture_to_read_only(engine: Path, work: Path) -> None:
    done = run(
        "label", "tf files", "to label/a b.jpg", "to label/a b.jpg", "gone.jpg", "--top", "1", engine=engine, cwd=work
    )
    options, line = told(done)
    mounts = [options[at + 1] for at, word in enumerate(options) if word == "--mount"]
    assert mounts == [mount(work / "tf files/model", "readonly"), mount(work / "to label/a b.jpg", "readonly")]
    assert line[:6] == ["retrain:runtime", "label", "--model", str(work / "tf files/model"), "--top", "1"]
    assert line[6:] == ["--", *[str(work / "to label/a b.jpg")] * 2, str(work / "gone.jpg")]
    assert "--interactive" not in options  # it would swallow the input of a loop around it
    assert "--interactive" in told(run("label", "tf files", "-", engine=engine, cwd=work))[0]


def test_classify_makes_its_folder_unless_it_only_says_what_would_be(engine: Path, work: Path) -> None:
    _, line = told(run("classify", "tf files", "to label", "out/a", "--dry-run", engine=engine, cwd=work))
    assert not (work / "out").exists() and line[4:] == ["--dry-run", "--", str(work / "to label"), str(work / "out/a")]
    options, _ = told(run("classify", "tf files", "to label", "out/a", engine=engine, cwd=work))
    assert (work / "out/a").is_dir() and mount(work / "out/a") in options and mount(work / "to label", "readonly") in options


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", ["--user", f"{os.getuid()}:{os.getgid()}", "--group-add"]),
        ("true", ["--user", f"{os.getuid()}:{os.getgid()}", "--userns", "keep-id"]),
        ("[name=seccomp name=rootless]", ["--user", "0:0", "--tmpfs"]),
    ],
    ids=["docker or podman as root", "podman without root", "docker without root"],
)
def test_what_comes_out_belongs_to_the_caller(answer: str, expected: list[str], engine: Path, work: Path) -> None:
    options, _ = told(run("train", "tf files", engine=engine, cwd=work, ANSWER=answer))
    at = options.index("--user")
    assert options[at : at + len(expected)] == expected


def test_the_umask_goes_along(engine: Path, work: Path) -> None:
    os.umask(before := os.umask(0))
    assert f"\n{before:04o}\ntrain\n" in run("train", "tf files", engine=engine, cwd=work).stdout


@pytest.mark.parametrize(
    ("script", "arguments", "code", "message"),
    [
        ("train", [], 2, "usage: docker/train.sh TF_FILES"),
        ("train", ["--folds", "5"], 2, "usage: docker/train.sh TF_FILES"),
        ("train", ["nowhere"], 2, "nowhere does not exist; give a folder"),
        ("train", ["to label/a b.jpg"], 2, "is a file; give a folder"),
        ("train", ["/"], 2, "/ would hide /opt/retrain in the container; name a folder further down"),
        ("train", ["/usr"], 2, "/usr would hide /usr/bin in the container"),
        ("label", ["tf files"], 2, "usage: docker/label.sh TF_FILES IMAGE"),
        ("label", ["to label", "a.jpg"], 5, "no model in "),
        ("classify", ["tf files", "to label"], 2, "usage: docker/classify.sh TF_FILES TEST_DATA CLASSIFIED"),
        ("classify", ["tf files", "nowhere", "out"], 2, "nowhere does not exist; give a folder"),
        ("classify", ["tf files", "to label", "to label/a b.jpg/x"], 6, "cannot make the folder"),
    ],
)
def test_mistakes_end_with_one_line(
    script: str, arguments: list[str], code: int, message: str, engine: Path, work: Path
) -> None:
    done = run(script, *arguments, engine=engine, cwd=work)
    assert done.returncode == code and message in done.stderr
    ours = [line for line in done.stderr.splitlines() if not line.startswith("mkdir:")]
    assert len(ours) == 1 and ours[0].startswith(f"{script}.sh: ")
    assert not (work / "out").exists()


def test_no_engine_and_no_image_are_told(engine: Path, work: Path, tmp_path: Path) -> None:
    done = run("label", "tf files", "-", engine=Path("nope"), cwd=work)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1) and "CONTAINER_ENGINE: no command nope" in done.stderr
    done = run("label", "tf files", "-", engine=engine, cwd=work, RETRAIN_IMAGE="absent")
    assert (done.returncode, done.stderr.count("\n")) == (
        6,
        1,
    ) and "no image absent:runtime; build it with: make images" in done.stderr
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "dirname", "env"):
        (bare / name).symlink_to(str(shutil.which(name)))
    done = run("label", "tf files", "-", engine=Path(""), cwd=work, PATH=str(bare), CONTAINER_ENGINE="")
    assert (done.returncode, done.stderr.count("\n")) == (6, 1) and "neither docker nor podman is installed" in done.stderr


def test_help_is_no_mistake(engine: Path, work: Path) -> None:
    for script in ("train", "label", "classify"):
        done = run(script, "--help", engine=engine, cwd=work)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: docker/{script}.sh TF_FILES")
