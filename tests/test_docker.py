"""The scripts that run the images, as far as that shows without an engine; test_containers.py runs them for real."""

import csv
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from retrain.cli import cli
from retrain.serve.health import DEFAULT_PORT

ROOT = Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SCRIPTS = sorted(DOCKER.glob("*.sh"))

# Answers what the scripts ask an engine, and writes what it is to run, an argument a line.
ENGINE = """#!/bin/sh
case $1 in
    info) printf '%s\n' "$ANSWER"; [ "$ANSWER" != down ] ;;
    image) [ "$3" != absent:runtime ] ;;
    run) umask; for argument in "$@"; do printf '%s\\n' "$argument"; done ;;
esac
"""


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
    assert words[at + 1] == "dumb-init" and words[at + 3 : at + 6] == ["--", "/bin/sh", "-c"]
    return words[:at], [words[at + 2], *words[at + 8 :]]


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing() -> None:
    assert len(SCRIPTS) >= 5
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


def shown(options: list[str]) -> dict[str, str]:
    """Path in the container -> path outside, as the engines read them."""
    mounts = (next(csv.reader([options[at + 1]])) for at, word in enumerate(options) if word == "--mount")
    return {
        os.path.normpath(target.removeprefix("target=")): source.removeprefix("source=") for _, source, target, *_ in mounts
    }


def test_train_follows_links_of_the_data_and_of_classes_under_the_names_that_they_give(engine: Path, work: Path) -> None:
    real = work / "tf files/data/elsa"
    (work / "by the way").symlink_to(work / "tf files")
    (work / "tested/elsa").symlink_to("../by the way/data/elsa")
    links = {
        "one/data/elsa": real,
        "two/data/elsa": "../../tf files/data/elsa",
        "through/data/elsa": work / "by the way/data/elsa",
        "without data/elsa": real,
        "twice/data/elsa": "anna",
        "twice/data/anna": real,
        "whole/data": "../tf files/data",
    }
    for name, leads in links.items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).symlink_to(leads)
    for name, leads in links.items():
        folder = name.partition("/")[0]
        options, _ = told(run("train", folder, "--test-dir", "tested", engine=engine, cwd=work))
        expected = os.path.normpath((work / name).parent / (real if leads == "anna" else leads))
        assert Path(shown(options)[expected]) == (work / name).resolve(), name
        assert shown(options)[str(work / "by the way/data/elsa")] == str(real), "links of the test folder"


@pytest.mark.parametrize("ours", ["model", "reports", "bottlenecks.sqlite"])
def test_what_train_writes_may_not_be_a_link(engine: Path, work: Path, ours: str) -> None:
    (work / "new/data").mkdir(parents=True)
    (work / "new" / ours).symlink_to(work / "tested")
    done = run("train", "new", engine=engine, cwd=work)
    assert done.returncode == 2 and f"new/{ours} is a link, which leads nowhere in the container" in done.stderr


def test_a_folder_with_the_name_of_a_network_is_not_the_network(engine: Path, work: Path) -> None:
    (work / "efficientnet-lite1").mkdir()
    _, line = told(run("train", "tf files", "--backbone", "efficientnet-lite1", engine=engine, cwd=work))
    assert line[3:] == ["--backbone=efficientnet-lite1"]
    _, line = told(run("train", "tf files", "--backbone", "./efficientnet-lite1", engine=engine, cwd=work))
    assert line[3:] == [f"--backbone={work / 'efficientnet-lite1'}"]


def test_a_script_may_be_called_through_a_link(engine: Path, work: Path, tmp_path: Path) -> None:
    (tmp_path / "label").symlink_to(DOCKER / "label.sh")
    line, environment = [tmp_path / "label", "tf files", "-"], {"PATH": os.environ["PATH"], "CONTAINER_ENGINE": str(engine)}
    done = subprocess.run(line, cwd=work, env=environment | {"ANSWER": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


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


def test_serve_shows_its_page_to_this_machine_alone(engine: Path, work: Path) -> None:
    (work / "tf files/reports").mkdir()
    done = run("serve", "tf files", "--name", "pets", engine=engine, cwd=work)
    options, line = told(done)
    assert options[:5] == ["run", "--rm", "--read-only", "--publish", "127.0.0.1:8000:8000"] and "--network" not in options
    mounts = [options[at + 1] for at, word in enumerate(options) if word == "--mount"]
    assert mounts == [mount(work / "tf files" / name, "readonly") for name in ("model", "reports", "data")]
    inside = ["--host", "0.0.0.0", "--port", "8000", "--allow-host", "localhost"]
    assert line == [
        "retrain:serve", "serve", "--model", str(work / "tf files/model"), *inside, "--name", "pets", "--training-pictures"
    ]  # fmt: skip
    assert done.stderr == "serve.sh: on this machine it is http://127.0.0.1:8000/\n"


def test_serve_shows_no_training_pictures_to_other_machines(engine: Path, work: Path) -> None:
    given = ("--host=0.0.0.0", "--port", "80", "--allow-host", "demo.example.org")
    options, line = told(run("serve", "tf files", *given, engine=engine, cwd=work))
    assert options[options.index("--publish") + 1] == "0.0.0.0:80:8000"
    assert [options[at + 1] for at, word in enumerate(options) if word == "--mount"] == [
        mount(work / "tf files/model", "readonly")
    ]
    assert line[-2:] == ["--allow-host", "demo.example.org"]
    options, line = told(run("serve", "tf files", "--no-training-pictures", engine=engine, cwd=work))
    assert options.count("--mount") == 1 and line[-1] == "--no-training-pictures"
    options, line = told(run("serve", "tf files", *given, "--training-pictures", engine=engine, cwd=work))
    assert mount(work / "tf files/data", "readonly") in options and line[-1] == "--training-pictures"


def test_serve_on_a_named_network(engine: Path, work: Path) -> None:
    options, line = told(run("serve", "tf files", "--port=81", engine=engine, cwd=work, RETRAIN_NETWORK="inner"))
    assert options[3:7] == ["--network", "inner", "--publish", "127.0.0.1:81:8000"] and line[6:8] == ["--port", "8000"]
    options, line = told(run("serve", "tf files", "--port=81", engine=engine, cwd=work, RETRAIN_NETWORK="host"))
    assert "--publish" not in options and line[4:8] == ["--host", "127.0.0.1", "--port", "81"]


def test_classify_makes_its_folder_unless_it_only_says_what_would_be(engine: Path, work: Path) -> None:
    _, line = told(run("classify", "tf files", "to label", "out/a", "--dry-run", engine=engine, cwd=work))
    assert not (work / "out").exists() and line[4:] == ["--dry-run", "--", str(work / "to label"), str(work / "out/a")]
    options, _ = told(run("classify", "tf files", "to label", "out/a", engine=engine, cwd=work))
    assert (work / "out/a").is_dir() and mount(work / "out/a") in options and mount(work / "to label", "readonly") in options


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", ["--user", f"{os.getuid()}:{os.getgid()}", "--group-add"]),
        ("host:\n  security:\n    rootless: true\n", ["--user", f"{os.getuid()}:{os.getgid()}", "--userns", "keep-id"]),
        (" Security Options:\n  seccomp\n  rootless\n Kernel Version: 6\n", ["--user", "0:0", "--tmpfs"]),
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
        ("classify", ["tf files", "/tmp", "out"], 2, "/tmp would hide /tmp in the container"),
        ("classify", ["tf files", "to label", "to label"], 2, "cannot be both read and written"),
        ("classify", ["tf files", "to label", "tf files/model"], 2, "cannot be both read and written"),
        ("classify", ["tf files", "to label", "new", "--model=x"], 2, "--model=x: the model is that of TF_FILES"),
        (
            "label",
            ["tf files", "--top", "1", "to label/a b.jpg"],
            2,
            "no picture before the options; usage: docker/label.sh",
        ),
        ("label", ["tf files", "-", "--model", "x"], 2, "--model: the model is that of TF_FILES; give another TF_FILES"),
        ("train", ["tf files", "--test-dir", "nowhere"], 2, "nowhere does not exist; give a folder"),
        ("label", ["tf files"], 2, "usage: docker/label.sh TF_FILES IMAGE"),
        ("serve", [], 2, "usage: docker/serve.sh TF_FILES"),
        ("serve", ["to label"], 5, "no model in "),
        ("serve", ["tf files", "--model", "x"], 2, "--model: the model is that of TF_FILES"),
        ("serve", ["tf files", "--port", "0"], 2, "--port 0 is out of range; it goes from 1 to 65535"),
        ("serve", ["tf files", "--port=65536"], 2, "--port 65536 is out of range"),
        ("serve", ["tf files", "--port=8000:9"], 2, "--port 8000:9 is out of range"),
        ("serve", ["tf files", "--port"], 2, "--port needs a value; usage: docker/serve.sh TF_FILES"),
        ("serve", ["tf files", "--host", "demo.example.org"], 2, "--host demo.example.org is no address of this machine"),
        ("serve", ["tf files", "--host", "0.0.0.0"], 2, "--host 0.0.0.0 opens the server to other machines"),
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
    assert done.stderr.count("\n") == 1 and done.stderr.startswith(f"{script}.sh: ")
    assert not (work / "out").exists() and not (work / "new").exists()


def test_no_engine_and_no_image_are_told(engine: Path, work: Path, tmp_path: Path) -> None:
    done = run("label", "tf files", "-", engine=Path("nope"), cwd=work)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1) and "CONTAINER_ENGINE: no command nope" in done.stderr
    done = run("label", "tf files", "-", engine=engine, cwd=work, RETRAIN_IMAGE="absent")
    assert (done.returncode, done.stderr.count("\n")) == (
        6,
        1,
    ) and "no image absent:runtime; build it with: make images" in done.stderr
    done = run("label", "tf files", "-", engine=engine, cwd=work, ANSWER="down")
    assert (done.returncode, done.stderr.count("\n")) == (6, 1) and "engine does not run here: down; start it" in done.stderr
    bare = tmp_path / "bin"
    bare.mkdir()
    for name in ("bash", "dirname", "env", "readlink"):
        (bare / name).symlink_to(str(shutil.which(name)))
    done = run("label", "tf files", "-", engine=Path(""), cwd=work, PATH=str(bare), CONTAINER_ENGINE="")
    assert (done.returncode, done.stderr.count("\n")) == (6, 1) and "neither docker nor podman is installed" in done.stderr


def test_help_is_no_mistake(engine: Path, work: Path) -> None:
    for script in ("train", "label", "classify", "serve"):
        done = run(script, "--help", engine=engine, cwd=work)
        assert done.returncode == 0 and done.stdout.startswith(f"usage: docker/{script}.sh TF_FILES")


# compose.yaml: `docker compose` is not here, which would say what it makes of it


def composed() -> dict[str, Any]:
    service: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["retrain"]
    return service


def test_the_demo_may_do_nothing_but_serve() -> None:
    service = composed()
    known = {
        "image", "command", "ports", "volumes", "user", "read_only", "tmpfs", "cap_drop", "security_opt", "mem_limit",
        "pids_limit", "healthcheck", "stop_grace_period", "restart",
    }  # fmt: skip
    assert set(service) == known, "keys of the compose specification"
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["user"] == "10001:10001"
    assert service["security_opt"] == ["no-new-privileges:true"] and service["tmpfs"] == ["/tmp:size=16m"]
    assert service["ports"] == ["127.0.0.1:8000:8000"], "the proxy alone reaches it"
    (volume,) = service["volumes"]
    assert volume["read_only"] is True and volume["source"] == "${TF_FILES:-./tf_files}/model", "a folder: models change"
    assert all(isinstance(word, str) for word in service["command"])


def test_the_demo_is_started_as_the_command_line_allows() -> None:
    words = [re.sub(r"\$\{\w+:-(.*?)\}", r"\1", word) for word in composed()["command"]]
    command = cli.commands[words[0]]
    options = command.make_context(words[0], words[1:]).params
    assert options["hosts"] == ("demo.example.org",) and (options["host"], options["port"]) == ("0.0.0.0", 8000)
    assert str(options["model"]) == composed()["volumes"][0]["target"]


def test_the_image_and_the_demo_are_asked_for_their_health_alike() -> None:
    service, dockerfile = composed(), (DOCKER / "Dockerfile").read_text()
    (asked,) = re.findall(r"^HEALTHCHECK (.*) CMD (\[.*\])$", dockerfile, re.MULTILINE)
    health = service["healthcheck"]
    assert health["test"] == ["CMD", *json.loads(asked[1])] == ["CMD", "python3", "-m", "retrain.serve.health"]
    options = dict(re.findall(r"--([a-z-]+)=(\w+)", asked[0]))
    assert options == {name.replace("_", "-"): health[name] for name in health if name != "test"}
    (line,) = re.findall(r'^CMD (\["serve".*\])$', dockerfile, re.MULTILINE)
    served = cli.commands["serve"].make_context("serve", json.loads(line)[1:]).params
    assert served["host"] == "0.0.0.0" and served["port"] == DEFAULT_PORT
    assert re.findall(r"^EXPOSE (\d+)$", dockerfile, re.MULTILINE) == [str(DEFAULT_PORT)]
