"""The images, run for real: foreign users, nothing to write but what is given, no network.

`make images` builds them first; CONTAINER_ENGINE and RETRAIN_IMAGE say where they are.
"""

import csv
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import retrain
from tests.test_docs_run import agree, in_shell, steps
from tests.test_docs_run import run as type_in

pytestmark = pytest.mark.container

ROOT = Path(__file__).resolve().parent.parent
IMAGE = os.environ.get("RETRAIN_IMAGE", "retrain")
FOREIGN = (41234, 42345)  # user and group that no machine knows
CLOSED = ["--read-only", "--network", "none", "--security-opt", "label=disable"]
LARGEST_MB = 250
NAME = re.compile(r"(bugs|fruit|mammals|vehicles|unknown)-[01]\.\d{5}(-\d+)?\.jpg")


@pytest.fixture(scope="session")
def engine() -> str:
    """The command that runs containers."""
    found = os.environ.get("CONTAINER_ENGINE") or shutil.which("docker") or shutil.which("podman")
    assert found, "neither docker nor podman is installed"
    assert os.geteuid() == 0, "only root can give folders to other users: run these tests as root"
    for tag in ("train", "runtime", "serve"):
        there = subprocess.run([found, "image", "inspect", f"{IMAGE}:{tag}"], capture_output=True, check=False)
        assert there.returncode == 0, f"no image {IMAGE}:{tag}; run: make images"
    return found


@pytest.fixture(scope="session")
def closed(engine: str) -> list[str]:
    """Options that leave nothing to write. Podman gives even a read-only container a /tmp, unless told otherwise."""
    version = subprocess.run([engine, "--version"], capture_output=True, text=True, check=True).stdout
    return [*CLOSED, "--read-only-tmpfs=false"] if "podman" in version else CLOSED


def inspect(engine: str, image: str, what: str) -> str:
    line = [engine, "image", "inspect", "--format", what, image]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.strip()


def run(engine: str, tag: str, *words: object, options: list[str]) -> subprocess.CompletedProcess[str]:
    line = [engine, "run", "--rm", *options, f"{IMAGE}:{tag}", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False)


def homeless(engine: str, tag: str, *words: object, options: list[str]) -> subprocess.CompletedProcess[str]:
    """Run retrain as a user that nobody knows and that has no home."""
    as_foreign = [*options, "--user", "{}:{}".format(*FOREIGN), "--entrypoint", "env"]
    return run(engine, tag, "-u", "HOME", "retrain", *words, options=as_foreign)


def script(name: str, *words: object, engine: str, path: str = "", umask: int = 0o022) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CONTAINER_ENGINE": engine, "PATH": f"{path}{os.environ['PATH']}"}
    line = [ROOT / "docker" / f"{name}.sh", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=environment, umask=umask)


def written(folder: Path, but: str = "data") -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] != but:
            yield path, path.lstat()


def sample(folder: Path, *, owner: tuple[int, int] | None = None, a_class: int = 1000) -> Path:
    """A working folder with (at most so many pictures a class of) the sample set."""
    for source in sorted((ROOT / "tf_files/data").iterdir()):
        (folder / "data" / source.name).mkdir(parents=True)
        for picture in sorted(source.iterdir())[:a_class]:
            shutil.copy(picture, folder / "data" / source.name)
    if owner:
        os.chown(folder, *owner)
    return folder


@pytest.fixture(scope="session")
def trained(engine: str, closed: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which a foreign user without a home trained, with nothing else to write and no network."""
    folder = sample(tmp_path_factory.mktemp("open") / "tf_files", owner=FOREIGN)
    done = homeless(engine, "train", "train", "/tf_files", options=[*closed, "-v", f"{folder}:/tf_files"])
    assert done.returncode == 0, done.stderr
    assert "pictures:      175 used, 0 skipped" in done.stdout
    shown = re.search(r"^test accuracy: .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert shown and shown[0] in done.stdout
    assert "converting" not in done.stderr, "the image must bring its networks ready to run"
    return folder


# What the images are


@pytest.mark.parametrize("tag", ["train", "runtime", "serve"])
def test_the_image_says_what_it_is(engine: str, tag: str) -> None:
    labels = json.loads(inspect(engine, f"{IMAGE}:{tag}", "{{json .Config.Labels}}"))
    start = "org.opencontainers.image."
    assert labels[f"{start}version"] == retrain.__version__ and labels[f"{start}licenses"] == "Apache-2.0"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", labels[f"{start}revision"])
    assert labels[f"{start}title"].startswith("retrain") and labels[f"{start}description"] and labels[f"{start}base.name"]
    done = run(engine, tag, "--version", options=CLOSED)
    assert done.stdout.strip().endswith(retrain.__version__)
    assert run(engine, tag, "-u", options=[*CLOSED, "--entrypoint", "id"]).stdout.strip() == "10001"


def test_the_small_image_is_small_and_has_no_tensorflow(engine: str) -> None:
    above = run(engine, "runtime", "-sm", "/opt/retrain", options=[*CLOSED, "--entrypoint", "du"])
    assert 100 < int(above.stdout.split()[0]) < LARGEST_MB
    assert len(json.loads(inspect(engine, f"{IMAGE}:runtime", "{{json .RootFS.Layers}}"))) >= 3
    find = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('tensorflow', 'keras', 'pip')))"
    assert run(engine, "runtime", "-c", find, options=[*CLOSED, "--entrypoint", "python3"]).returncode == 0


def test_the_image_that_serves_adds_nothing_but_how_to_ask_for_its_health(engine: str) -> None:
    """A container that labels must not be called sick for not serving."""
    layers, health, command = "{{json .RootFS.Layers}}", "{{json .Config.Healthcheck}}", "{{json .Config.Cmd}}"
    assert inspect(engine, f"{IMAGE}:serve", layers) == inspect(engine, f"{IMAGE}:runtime", layers)
    assert json.loads(inspect(engine, f"{IMAGE}:serve", health))["Test"] == ["CMD", "python3", "-m", "retrain.serve.health"]
    assert json.loads(inspect(engine, f"{IMAGE}:serve", command))[0] == "serve"
    for tag in ("runtime", "train"):
        assert inspect(engine, f"{IMAGE}:{tag}", health) == "null"


def test_training_in_the_small_image_is_refused_in_one_line(engine: str, tmp_path: Path) -> None:
    folder = sample(tmp_path, a_class=3)
    done = run(engine, "runtime", "train", "/tf_files", options=[*CLOSED, "--user", "0", "-v", f"{folder}:/tf_files"])
    assert done.returncode == 6 and "Traceback" not in done.stderr
    assert [line for line in done.stderr.splitlines() if "tensorflow" in line.lower()]


# What they do, closed off


def test_what_training_writes_belongs_to_its_user(trained: Path) -> None:
    found = list(written(trained))
    assert {"model", "reports", "bottlenecks.sqlite"} <= {path.name for path, _ in found}
    assert {(status.st_uid, status.st_gid) for _, status in found} == {FOREIGN}


def test_a_second_run_computes_nothing(engine: str, closed: list[str], trained: Path) -> None:
    done = homeless(engine, "train", "train", "/tf_files", options=[*closed, "-v", f"{trained}:/tf_files"])
    assert done.returncode == 0 and "0 computed, 175 from the cache" in done.stdout


@pytest.mark.parametrize("tag", ["train", "runtime"])
def test_label_gives_the_scores_that_it_gives_outside(engine: str, closed: list[str], trained: Path, tag: str) -> None:
    picture = ROOT / "test_data/ladybug.jpg"
    mounts = ["-v", f"{trained}/model:/model:ro", "-v", f"{picture}:/picture.jpg:ro"]
    done = homeless(engine, tag, "label", "/picture.jpg", "--model", "/model", "--json", options=[*closed, *mounts])
    assert done.returncode == 0, done.stderr
    inside = {row["label"]: row["score"] for row in json.loads(done.stdout)["labels"]}
    outside = {score.label: score.score for score in retrain.load(trained / "model").label(picture)}
    assert inside == pytest.approx(outside, abs=1e-3)


def test_classify_copies_every_picture_and_lists_the_bad_ones(
    engine: str, closed: list[str], trained: Path, tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "test_data", pictures := tmp_path / "pictures")
    good = {path.name for path in pictures.glob("*.jpg")}
    (pictures / "empty.jpg").touch()
    (pictures / "text.png").write_text("no picture")
    (out := tmp_path / "out").mkdir()
    os.chown(out, *FOREIGN)
    mounts = ["-v", f"{trained}/model:/model:ro", "-v", f"{pictures}:/pictures:ro", "-v", f"{out}:/out"]
    done = homeless(engine, "runtime", "classify", "/pictures", "/out", "--model", "/model", options=[*closed, *mounts])
    assert done.returncode == 3, done.stderr
    with (out / "manifest.csv").open(newline="") as file:
        rows = {Path(row["source"]).name: row for row in csv.DictReader(file)}
    assert {name for name, row in rows.items() if row["copy"]} == good and len(good) == 12
    for name in good:
        copy = out / rows[name]["copy"]
        assert NAME.fullmatch(copy.name) and copy.read_bytes() == (pictures / name).read_bytes()
        assert (copy.stat().st_uid, copy.stat().st_gid) == FOREIGN
    assert {name for name, row in rows.items() if row["reason"]} >= {"empty.jpg", "text.png"}


@pytest.mark.parametrize("backbone", ["efficientnet-lite1", "efficientnet-lite2"])
def test_the_other_embedded_networks_are_ready_too(engine: str, closed: list[str], tmp_path: Path, backbone: str) -> None:
    folder = sample(tmp_path / "tf_files", owner=FOREIGN, a_class=5)
    options = [*closed, "-v", f"{folder}:/tf_files"]
    done = homeless(engine, "train", "train", "/tf_files", "--backbone", backbone, options=options)
    assert done.returncode == 0, done.stderr
    assert "converting" not in done.stderr


def test_a_folder_that_cannot_be_written_is_told_in_one_line(engine: str, closed: list[str], tmp_path: Path) -> None:
    folder = sample(tmp_path / "tf_files", a_class=3)
    done = homeless(engine, "train", "train", "/tf_files", options=[*closed, "-v", f"{folder}:/tf_files:ro"])
    assert done.returncode == 6 and "/tf_files" in done.stderr and "Traceback" not in done.stderr


def test_a_stopped_container_ends_itself(engine: str, tmp_path: Path) -> None:
    folder, name = sample(tmp_path, a_class=40), f"retrain-test-{os.getpid()}"
    line = [engine, "run", "--rm", "--name", name, *CLOSED, "--user", "0", "-v", f"{folder}:/tf_files", f"{IMAGE}:train"]
    with subprocess.Popen(
        [*line, "train", "/tf_files"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        deadline = time.monotonic() + 60
        while not (folder / "reports/train.json").exists() and not (folder / "bottlenecks.sqlite").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        subprocess.run([engine, "kill", "--signal", "TERM", name], capture_output=True, check=True)
        _, errors = running.communicate(timeout=60)
    assert running.returncode == 143 and "terminated; what was done so far is kept" in errors
    assert json.loads((folder / "reports/train.json").read_text())["exit_code"] == 143


@pytest.mark.parametrize("options", [[], ["--entrypoint", "dumb-init"]], ids=["plain", "as the scripts"])
@pytest.mark.parametrize("delay", [0, 0.05, 0.2])
def test_a_container_that_is_stopped_as_it_starts_ends_itself(
    engine: str, delay: float, options: list[str], trained: Path
) -> None:
    """Process 1 hears only what it has a handler for, and Python takes a while to have one."""
    name = f"retrain-test-early-{os.getpid()}-{delay}-{len(options)}"
    line = [engine, "run", "--rm", "--interactive", "--name", name, *CLOSED, "--user", "0"]
    line += ["-v", f"{trained / 'model'}:/model:ro", *options, f"{IMAGE}:runtime"]
    line += ["--", "/bin/sh", "-c", 'exec retrain "$@"', "sh"] if options else []
    with subprocess.Popen(  # nothing comes on its standard input, so it would wait for ever
        [*line, "label", "-", "--model", "/model"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        deadline = time.monotonic() + 60
        while "true" not in subprocess.run(
            [engine, "inspect", "--format", "{{.State.Running}}", name], capture_output=True, text=True, check=False
        ).stdout:  # fmt: skip
            assert time.monotonic() < deadline
        time.sleep(delay)
        subprocess.run([engine, "kill", "--signal", "TERM", name], capture_output=True, check=False)
        running.communicate(timeout=60) if running.poll() is None else None
    assert running.returncode == 143


# What serves


class Served(NamedTuple):
    """A server in a container. `running`: the engine that waits for it; `name`: of the container."""

    running: subprocess.Popen[str]
    name: str
    port: int

    def get(self, path: str, data: bytes | None = None, **headers: str) -> bytes:
        """Ask from outside."""
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return bytes(answer.read())


@contextmanager
def serving(name: str, line: list[object], port: int) -> Iterator[Served]:
    """Start what serves, and wait until it does."""
    words = list(map(str, line))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout and running.stdout.readline().startswith("serving "), running.communicate()
            yield Served(running, name, port)
        finally:
            if running.poll() is None:
                running.kill()


@pytest.fixture
def port() -> int:
    """One that is free on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@pytest.mark.parametrize("user", [None, FOREIGN], ids=["its own user", "a foreign user without a home"])
def test_it_serves_with_nothing_to_write_and_ends_when_it_is_stopped(
    engine: str, closed: list[str], trained: Path, port: int, user: tuple[int, int] | None
) -> None:
    name = f"retrain-test-serve-{os.getpid()}-{port}"
    options = [option for option in closed if option not in ("--network", "none")]
    line = [engine, "run", "--rm", "--name", name, *options, "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    line += ["--publish", f"127.0.0.1:{port}:8000", "-v", f"{trained / 'model'}:/tf_files/model:ro"]
    whole = [*line, f"{IMAGE}:serve"]
    if user:
        whole = [*line, "--user", "{}:{}".format(*user), "--entrypoint", "env", f"{IMAGE}:serve", "-u", "HOME", "retrain"]
        whole += json.loads(inspect(engine, f"{IMAGE}:serve", "{{json .Config.Cmd}}"))
    picture = ROOT / "test_data/ladybug.jpg"
    with serving(name, whole, port) as served:
        assert b"<title>" in served.get("/") and json.loads(served.get("/healthz")) == {"status": "ok"}
        inside = {row["label"]: row["score"] for row in json.loads(served.get("/label", picture.read_bytes()))}
        outside = {score.label: score.score for score in retrain.load(trained / "model").label(picture)}
        assert inside == pytest.approx(outside, abs=1e-3)
        assert all(
            near["picture"] is None for near in json.loads(served.get("/explain", picture.read_bytes()))["neighbours"]
        )
        with pytest.raises(urllib.error.HTTPError, match="403"):
            served.get("/about", Host="evil.example")

        asks = [engine, "exec", name, "python3", "-m", "retrain.serve.health"]
        assert subprocess.run(asks, capture_output=True, check=False).returncode == 0
        assert subprocess.run([*asks, "8001"], capture_output=True, check=False).returncode == 1, "nobody listens there"

        begun = time.monotonic()
        subprocess.run([engine, "kill", "--signal", "TERM", name], capture_output=True, check=True)
        _, errors = served.running.communicate(timeout=30)
        assert served.running.returncode == 143 and time.monotonic() - begun < 10
    assert "ended; every request that had arrived was answered" in errors and "Traceback" not in errors


def test_the_script_serves_this_machine_with_training_pictures_and_a_new_model_once_it_is_there(
    engine: str, trained: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTAINER_ENGINE", engine)
    shutil.copytree(trained, folder := tmp_path / "my tf_files")
    with serving("", [ROOT / "docker/serve.sh", folder, "--port", port, "--name", "pets"], port) as served:
        found = json.loads(served.get("/explain", (ROOT / "test_data/ladybug.jpg").read_bytes()))
        assert found["labels"][0]["label"] == "bugs"
        assert all(near["picture"].startswith("data:image/") for near in found["neighbours"]) and found["neighbours"]

        manifest = folder / "model/manifest.json"
        (changed := folder / "model/new").write_bytes(manifest.read_bytes())
        changed.replace(manifest)  # as a model is replaced
        deadline, version = time.monotonic() + 20, ""
        while version != "2":
            assert time.monotonic() < deadline, "the new model is not served"
            version = json.loads(served.get("/v1/models/pets"))["model_version_status"][0]["version"]
            time.sleep(0.1)
        served.running.send_signal(signal.SIGINT)
        _, errors = served.running.communicate(timeout=30)
        assert served.running.returncode == 130, errors
    assert "the model was changed; version 2 is served now, 4 labels" in errors


# The scripts


@pytest.fixture
def caller(tmp_path: Path) -> str:
    """PATH with an `id` that makes the scripts believe that someone else calls them."""
    file = tmp_path / "bin" / "id"
    file.parent.mkdir()
    file.write_text("#!/bin/sh\ncase $1 in -u) echo {};; *) echo {};; esac\n".format(*FOREIGN))
    file.chmod(0o755)
    return f"{file.parent}:"


def test_the_scripts_do_the_whole_job_for_their_caller(engine: str, caller: str, tmp_path: Path) -> None:
    work = tmp_path / 'my "work", all: of it'
    folder = sample(work / "tf files", owner=FOREIGN)
    shutil.copytree(ROOT / "test_data", work / "test data")
    os.chown(work, *FOREIGN)

    done = script("train", folder, engine=engine, path=caller, umask=0o027)
    assert done.returncode == 0 and "pictures:      175 used" in done.stdout, done.stderr
    for path, status in written(folder):
        assert (status.st_uid, status.st_gid) == FOREIGN, path
        assert stat.S_IMODE(status.st_mode) == (0o750 if path.is_dir() else 0o640), path

    done = script("label", folder, work / "test data/ladybug.jpg", "--top", "1", engine=engine, path=caller)
    assert done.returncode == 0 and re.fullmatch(r"bugs \(score = 0\.\d{5}\)\n", done.stdout), done.stderr

    (out := work / "classified").mkdir()  # the script would make it as whoever really calls it, which here is root
    os.chown(out, *FOREIGN)
    done = script("classify", folder, work / "test data", out, engine=engine, path=caller, umask=0o077)
    assert done.returncode == 0 and "pictures: 12 copied, 0 skipped" in done.stdout, done.stderr
    copies = [path for path in out.iterdir() if NAME.fullmatch(path.name)]
    assert len(copies) == 12
    assert {(path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) for path in copies} == {(FOREIGN[0], 0o600)}
    with (out / "manifest.csv").open(newline="") as file:
        assert all(Path(row["source"]).is_file() for row in csv.DictReader(file)), "paths are true outside, too"
    done = script("classify", folder, work / "test data", out, engine=engine, path=caller)
    assert done.returncode == 0 and "nothing new" in done.stdout


def test_label_reads_standard_input(engine: str, trained: Path) -> None:
    line = [ROOT / "docker/label.sh", trained, "-", "--top", "1"]
    environment = os.environ | {"CONTAINER_ENGINE": engine}
    with (ROOT / "test_data/banana.jpg").open("rb") as picture:
        done = subprocess.run(line, stdin=picture, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("fruit (score = 0.9")


@pytest.mark.parametrize("link", ["data/bugs", "data"])
@pytest.mark.parametrize("through", ["elsewhere", "a link/elsewhere"])
def test_class_folders_may_be_links_through_links(engine: str, tmp_path: Path, link: str, through: str) -> None:
    folder = sample(tmp_path / "tf_files", a_class=5)
    (tmp_path / "a link").symlink_to(tmp_path / "real")
    (tmp_path / through).parent.resolve().mkdir(exist_ok=True)
    (folder / link).rename(tmp_path / through)
    (folder / link).symlink_to(Path("../" * link.count("/"), "..", through))
    done = script("train", folder, engine=engine)
    assert done.returncode == 0 and "classes:       4 (bugs," in done.stdout, done.stderr


# The pages


@pytest.mark.parametrize("page", ["README.md", "docs/docker.md"])
def test_what_a_page_says_to_type_runs_and_prints_what_it_shows(
    engine: str, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shim := tmp_path / "bin" / "docker").parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec "{engine}" "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("CONTAINER_ENGINE", str(shim))
    (work := tmp_path / "clone").mkdir()
    (work / "docker").symlink_to(ROOT / "docker")
    for name in ("tf_files/data", "test_data"):
        shutil.copytree(ROOT / name, work / name)
    typed = re.compile(r"^(docker/|docker run |ls classified)")
    todo = [step for step in steps((ROOT / page).read_text(), typed) if not step.python]
    assert sum(len(step.typed) for step in todo) >= 3
    for step in todo:
        printed = tuple(text for line in step.typed for text in type_in(in_shell(line), work, shim.parent))
        assert step.shown is None or agree(step.shown, printed), (*step.typed, printed)
