"""What is released: one version, archives with all that belongs in them and nothing else, and a wheel that works.

Most of it builds and installs for real, from a copy of the files that git knows, and takes minutes.
"""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import NamedTuple

import pytest

import retrain

ROOT = Path(__file__).resolve().parent.parent
MEGABYTE = 10**6
# For git; a source archive is without it.
NOT_IN_SDIST = re.compile(r"\.git.*")
MADE_FOR_SDIST = {"PKG-INFO", "retrain.egg-info"}
# Lies about where someone has worked, and is no part of a release.
STRAY = (
    ".hypothesis/x",
    ".venv/lib/x.py",
    "build/lib/retrain/old.py",
    "classified/bugs-0.99184.jpg",
    "corpora/x.jpg",
    "dist/old.whl",
    "docs/.ipynb_checkpoints/x-checkpoint.ipynb",
    "tests/__pycache__/x.pyc",
    "tf_files/bottlenecks.sqlite",
    "tf_files/model/manifest.json",
    "tf_files/reports/train.json",
)
# What training takes; labelling goes without.
FOR_TRAINING = ("tensorflow", "keras", "tensorflow-hub", "setuptools", "efficientnet-")
WITHOUT_TENSORFLOW = "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None; "

release = pytest.mark.release
in_git = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs to ask git which files belong here")


# --- the version


def released(changelog: str) -> list[str]:
    """The versions that have headings, newest first."""
    return re.findall(r"^## \[(.+?)\]", changelog, re.MULTILINE)


def order(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def contradictions(changelog: str, version: str) -> Iterator[str]:
    """Yield what the changelog says that cannot be while the package is `version`."""
    newest, *older = [*released(changelog), None]
    dated = [name for name in (newest, *older) if name not in ("Unreleased", None)]
    if newest == "Unreleased" and any(order(str(name)) >= order(version) for name in dated):
        yield f"{version} was released already; raise it"
    if newest not in ("Unreleased", version):
        yield f"the newest heading is {newest}, the package is {version}"
    if "Unreleased" in older:
        yield "changes are listed as unreleased below a release"
    if [order(str(name)) for name in dated] != sorted({order(str(name)) for name in dated}, reverse=True):
        yield "the versions do not fall"
    for line in re.findall(r"^## \[\d.*", changelog, re.MULTILINE):
        if not re.fullmatch(r"## \[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", line):
            yield f"'{line}' is no version with a date"


def test_the_changelog_goes_with_the_version() -> None:
    assert list(contradictions((ROOT / "CHANGELOG.md").read_text(), retrain.__version__)) == []


@pytest.mark.parametrize(
    ("changelog", "complaints"),
    [
        ("## [Unreleased]\n", 0),
        ("## [Unreleased]\n## [0.1.9] - 2026-01-01\n", 0),
        ("## [0.2.0] - 2026-01-02\n## [0.1.9] - 2026-01-01\n", 0),
        ("## [Unreleased]\n## [0.2.0] - 2026-01-01\n", 1),
        ("## [Unreleased]\n## [0.10.0] - 2026-01-01\n", 1),
        ("## [0.1.9] - 2026-01-01\n", 1),
        ("## [0.2.0] - 2026-01-01\n## [Unreleased]\n", 1),
        ("## [0.2.0]\n", 1),
        ("## [0.2.0] - 2026-01-02\n## [0.1.0] - 2026-01-01\n## [0.1.9] - 2026-01-01\n", 1),
        ("", 1),
    ],
)
def test_a_changelog_that_does_not_go_with_the_version_is_found(changelog: str, complaints: int) -> None:
    assert len(list(contradictions(changelog, "0.2.0"))) == complaints


def test_the_version_stands_in_one_place() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["metadata"]["version"] == "attr: retrain.__version__"
    places = [path.relative_to(ROOT) for path in (ROOT / "retrain").rglob("*.py") if retrain.__version__ in path.read_text()]
    assert places == [Path("retrain/__init__.py")]
    assert "version" not in re.findall(r"^(\w+) *=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)


# --- where TensorFlow is not installed


@pytest.mark.parametrize("line", ["train tf_files", "train nowhere --folds 3"])
def test_training_without_tensorflow_is_one_line_that_says_what_to_install(tmp_path: Path, line: str) -> None:
    code = WITHOUT_TENSORFLOW + "from retrain.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True, check=False)
    said = "retrain: tensorflow and keras not found, needed for training; run: pip install tensorflow keras\n"
    assert (ran.returncode, ran.stdout, ran.stderr) == (6, "", said)


def test_from_python_as_well_it_says_what_to_install() -> None:
    code = WITHOUT_TENSORFLOW + "from retrain.devices import start; start()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "EnvironmentProblem: tensorflow and keras not found" in ran.stderr.splitlines()[-1]


# --- the archives


class Archives(NamedTuple):
    sdist: Path
    wheel: Path  # made from the sdist
    direct: Path  # made from the files, without a detour
    again: Path  # the same once more, elsewhere and later


def tracked() -> set[str]:
    """What git has, or would have after `git add .`; as it lies here, changes that are not committed included."""
    line = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in names if name and (ROOT / name).is_file()}


def copied(folder: Path) -> Path:
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)  # with the time of now
    return folder


def run(line: list[object], **options: object) -> str:
    """Run something that must go well; return what it says."""
    done = subprocess.run(
        list(map(str, line)), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **options
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}"
    return done.stdout


def build(tree: Path, out: Path, *options: str) -> Path:
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    run([sys.executable, "-m", "build", *options, "--outdir", out, tree], env=env)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """Build everything."""
    folder = tmp_path_factory.mktemp("release")
    worked_in = copied(folder / "worked in")
    for name in STRAY:
        (worked_in / name).parent.mkdir(parents=True, exist_ok=True)
        (worked_in / name).write_text("stray")
    wheel = build(worked_in, folder / "both")
    direct = build(copied(folder / "one"), folder / "direct", "--wheel")
    again = build(copied(folder / "two"), folder / "again", "--wheel")
    (sdist,) = wheel.parent.glob("*.tar.gz")
    return Archives(sdist, wheel, direct, again)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        return message_from_string(archive.read(f"retrain-{retrain.__version__}.dist-info/METADATA").decode())


@release
@in_git
def test_the_wheel_has_the_package_and_nothing_else(archives: Archives) -> None:
    assert archives.wheel.name == f"retrain-{retrain.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(archives.wheel) as archive:
        found = set(archive.namelist())
    about = f"retrain-{retrain.__version__}.dist-info/"
    package = {name for name in tracked() if name.startswith("retrain/")}
    assert "retrain/py.typed" in package and {name for name in found if not name.startswith(about)} == package
    assert {f"retrain/serve/page/{name}" for name in ("index.html", "page.js", "page.css", "icon.svg")} <= found
    assert {name.removeprefix(about) for name in found if name.startswith(about)} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    }  # fmt: skip


@release
@in_git
def test_the_source_archive_has_what_git_has_and_no_stray_files(archives: Archives) -> None:
    with tarfile.open(archives.sdist) as archive:
        paths = {member.name.partition("/")[2] for member in archive.getmembers() if member.isfile()}
    found = {path for path in paths if path.split("/")[0] not in MADE_FOR_SDIST}
    assert found == {name for name in tracked() if not NOT_IN_SDIST.fullmatch(name)}
    assert archives.sdist.stat().st_size < 6 * MEGABYTE


@release
@in_git
def test_what_a_package_index_checks_is_right(archives: Archives) -> None:
    assert run([sys.executable, "-m", "twine", "check", "--strict", archives.sdist, archives.wheel]).count("PASSED") == 2
    told = metadata(archives.wheel)
    assert (told["Name"], told["Version"]) == ("retrain", retrain.__version__)
    assert told["Requires-Python"] == ">=3.11" and told["Description-Content-Type"] == "text/markdown"
    assert told.get_payload() == (ROOT / "README.md").read_text()


@release
@in_git
def test_two_builds_are_the_same_bytes_and_so_is_the_wheel_that_is_made_from_the_sources(archives: Archives) -> None:
    assert archives.direct.read_bytes() == archives.again.read_bytes()
    assert archives.direct.read_bytes() == archives.wheel.read_bytes()


# --- the wheel, installed elsewhere


PAGE = ROOT / "docs" / "install.md"
MADE, WHEEL, LABELS_ONLY, SERVES = (
    r"python3 -m venv|~/retrain/bin/pip",
    r"pip install dist/",
    r"pip install --no-deps|pip install ai-",
    r"pip install starlette",
)


def typed(*wanted: str) -> list[str]:
    """The lines of the page that begin so, in its order."""
    blocks = "".join(re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))
    return [line for line in blocks.splitlines() if re.match("|".join(wanted), line)]


def environment(folder: Path, *lines: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Type what the page says in a folder, with ~ below it; return what runs a program of the environment ~/retrain."""
    # PYTHONPATH, say, would make pip find this repository and think that the wheel is there already.
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    (home := folder / "home" / "bin").mkdir(parents=True)
    (home / "python3").symlink_to(sys.executable)
    env |= {"HOME": str(home.parent), "PATH": f"{home}{os.pathsep}{env['PATH']}", "PIP_QUIET": "1"}
    for line in lines:
        run(["bash", "-c", f"[ ! -e ~/retrain ] || . ~/retrain/bin/activate\n{line}"], cwd=folder, env=env)
    env["RETRAIN_CACHE_DIR"] = str(folder / "cache")

    def start(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        line = [str(home.parent / "retrain" / "bin" / program), *map(str, arguments)]
        return subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=600, check=False)

    return start


def for_labelling(wheel: Path) -> list[str]:
    """The requirements but those of training."""
    requirements = [str(line) for line in metadata(wheel).get_all("Requires-Dist", []) if "extra ==" not in line]
    return [line for line in requirements if not line.startswith(FOR_TRAINING)]


def names(requirements: list[str]) -> list[str]:
    return sorted(re.split(r"[^\w-]", line)[0] for line in requirements)


@release
@in_git
def test_the_page_names_the_packages_that_labelling_takes(archives: Archives) -> None:
    (told,) = re.findall(r"^pip install (ai-edge-litert .*)$", PAGE.read_text(), re.MULTILINE)
    assert sorted(told.split()) == names(for_labelling(archives.wheel))
    (told,) = re.findall(r"^pip install (starlette .*)$", PAGE.read_text(), re.MULTILINE)
    serving = [
        line
        for line in metadata(archives.wheel).get_all("Requires-Dist", [])
        if "extra == 'serve'" in line.replace('"', "'")
    ]
    assert sorted(told.split()) == names(serving)


@release
@in_git
def test_the_wheel_labels_in_an_environment_without_tensorflow(archives: Archives, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "dist").mkdir()
    shutil.copy(archives.wheel, tmp_path / "dist")
    made, *others = typed(MADE, LABELS_ONLY)
    start = environment(tmp_path, made, *others[1:])
    shutil.copytree(trained / "model", tmp_path / "model")
    pictures, red = trained / "data", next((trained / "data" / "red").iterdir())

    where = start("python", "-c", "import retrain; print(retrain.__file__)").stdout
    assert where.startswith(str(tmp_path / "home" / "retrain"))
    assert start("retrain", "--version").stdout == f"retrain, version {retrain.__version__}\n"
    assert "retrain train tf_files/" in start("retrain", "--help").stdout
    assert start("retrain", "completion", "bash").returncode == start("retrain", "backbones").returncode == 0

    label = start("retrain", "label", red, "--model", "model", "--top", 1)
    assert label.returncode == 0 and label.stdout.startswith("red (score = ") and label.stderr == ""
    classify = start("retrain", "classify", pictures, "out", "--model", "model")
    assert classify.returncode == 0 and len(list((tmp_path / "out").glob("red-*"))) == 12, classify.stderr
    loaded = start("python", "-c", f"import retrain; print(retrain.load('model').label({str(red)!r})[0].label)")
    assert (loaded.returncode, loaded.stdout) == (0, "red\n"), loaded.stderr

    serve = start("retrain", "serve", "--model", "model")
    assert serve.returncode == 6 and serve.stderr.startswith("retrain: serving needs starlette, uvicorn"), serve.stderr

    train = start("retrain", "train", trained)
    assert train.returncode == 6 and train.stderr.startswith("retrain: tensorflow and keras not found"), train.stderr
    assert len(train.stderr.splitlines()) == 1


@release
@in_git
def test_the_wheel_serves_its_page_in_an_environment_without_tensorflow(
    archives: Archives, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    shutil.copy(archives.wheel, tmp_path / "dist")
    made, *others = typed(MADE, LABELS_ONLY, SERVES)
    environment(tmp_path, made, *others[1:])
    line = [tmp_path / "home" / "retrain" / "bin" / "retrain", "serve", "--model", trained / "model", "--port", "0"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with subprocess.Popen(
        list(map(str, line)), cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        address = re.findall(r"http://\S+", server.stdout.readline())
        try:
            assert address, server.communicate()
            for path in (ROOT / "retrain" / "serve" / "page").iterdir():
                with urllib.request.urlopen(address[0] + path.name.replace("index.html", ""), timeout=30) as answer:
                    assert answer.read() == path.read_bytes(), path.name
        finally:
            server.terminate()
            server.communicate(timeout=30)
    assert server.returncode == 143


@release
@in_git
def test_what_the_page_says_installs_what_trains_from_the_sources_and_from_the_wheel(
    archives: Archives, tmp_path: Path
) -> None:
    sources = copied(tmp_path / "clone")
    (sources / "dist").mkdir()
    shutil.copy(archives.wheel, sources / "dist")
    lines = typed(MADE, WHEEL)
    assert len(lines) == 3, lines
    start = environment(sources, *lines[:2], "pip uninstall --yes retrain", lines[2])
    train = start("retrain", "train", "tf_files")
    assert train.returncode == 0 and "classes:       4 (bugs, fruit, mammals, vehicles)" in train.stdout, train.stderr
    label = start("retrain", "label", ROOT / "test_data" / "ladybug.jpg", "--top", 1)
    assert label.returncode == 0 and label.stdout.startswith("bugs (score = "), label.stderr
    python = "import sys; sys.path.pop(0); import retrain; print(retrain.__file__, retrain.train('tf_files').computed)"
    where, computed = start("python", "-c", python).stdout.split()
    assert where.startswith(str(sources / "home")) and computed == "0"


@release
def test_what_the_page_says_for_a_gpu_would_install_the_libraries_of_cuda(tmp_path: Path) -> None:
    (gpu,) = typed(r"pip install 'tensorflow")
    start = environment(tmp_path, typed(MADE)[0], "pip install --upgrade pip")
    # Of wheels of 3 GB, what they require will do. pip 23 downloads all the same; newer ones take only the end of each.
    done = start(*shlex.split(gpu), "--dry-run", "--use-feature=fast-deps", "--report=report.json")
    assert done.returncode == 0, done.stderr
    chosen = {one["metadata"]["name"] for one in json.loads((tmp_path / "report.json").read_text())["install"]}
    assert "tensorflow" in chosen and any(name.startswith("nvidia-cudnn-") for name in chosen), chosen
