"""Pictures that are sent to be labelled and explained: the same answer as on the command line, or one that says why not."""

import base64
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from retrain.label import Labeller, load
from retrain.serve.bodies import Limits
from tests.conftest import Ran
from tests.drawing import COLOURS, draw
from tests.faults.pictures import CUT, HELD, ODD_PIXELS, PICTURES, content
from tests.serving import Service, form, typed

READ = [f"4-{name}" for name in HELD] + [f"5-{name}" for name in ODD_PIXELS]


@pytest.fixture(scope="module")
def service(trained: Path) -> Service:
    return Service(trained / "model")


@pytest.fixture(scope="module")
def labeller(trained: Path) -> Labeller:
    return load(trained / "model")


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


def as_listed(labeller: Labeller, data: bytes) -> list[dict[str, object]]:
    return [score._asdict() for score in labeller.label_bytes(data).scores]


# --- /label


@pytest.mark.parametrize(
    "kind",
    [
        "image/png",
        "image/x-whatever",
        "IMAGE/JPEG; q=1",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        None,
        "",
    ],
)
def test_a_picture_sent_as_it_is_gets_the_scores_that_the_library_gives(
    service: Service, labeller: Labeller, picture: bytes, kind: str | None
) -> None:
    answer = service.label(picture, kind)
    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    assert answer.json() == as_listed(labeller, picture)  # to the last digit, in the same order
    assert answer.header("retrain-unknown") == "false" and answer.header("cache-control") == "no-store"


def test_a_picture_unlike_all_that_was_learnt_is_called_so(service: Service, labeller: Labeller) -> None:
    data = content("10-of-many-colours.jpg")
    assert labeller.label_bytes(data).unknown
    assert service.label(data).header("retrain-unknown") == "true" and service.explain(data).json()["unknown"] is True


@pytest.mark.parametrize("name", READ)
def test_odd_pictures_are_read_as_the_library_reads_them(service: Service, labeller: Labeller, name: str) -> None:
    assert service.label(content(name)).json() == as_listed(labeller, content(name))


@pytest.mark.parametrize("top", [1, 2, 3, 99])
def test_so_many_labels_are_given_as_are_asked_for(service: Service, labeller: Labeller, picture: bytes, top: int) -> None:
    assert service.label(picture, query=f"?top={top}").json() == as_listed(labeller, picture)[:top]


@pytest.mark.parametrize("top", ["", "0", "-1", "1.0", "two", "%D9%A3", "9" * 5000, "%00"])
def test_another_number_of_labels_is_refused(service: Service, picture: bytes, top: str) -> None:
    assert "top" in service.label(picture, query=f"?top={top}").refused(400, "bad-request")


@pytest.mark.parametrize("name", [name for name, made in PICTURES.items() if made.reasons])
def test_a_picture_that_cannot_be_used_is_refused_with_the_reason_and_nothing_else(service: Service, name: str) -> None:
    answer = service.label(content(name))
    reason = answer.json()["id"]
    assert reason in PICTURES[name].reasons
    answer.refused(413 if reason == "too-large" else 422, reason)


def test_no_bytes_at_all_are_no_picture(service: Service) -> None:
    service.label(b"").refused(422, "empty")
    service.explain(b"").refused(422, "empty")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/json", "multipart/mixed; boundary=x", "text/html", "nonsense", "image", "/", "\xff"]
)
def test_what_says_to_be_something_else_is_refused(service: Service, picture: bytes, kind: str) -> None:
    service.label(picture, kind).refused(415, "wrong-type")


# --- forms


def test_the_one_file_of_a_form_is_labelled_whatever_it_is_called(
    service: Service, labeller: Labeller, picture: bytes
) -> None:
    for name in ("x.png", "../../etc/passwd", "/etc/passwd", "C:\\x.exe", "", "\u20ac<script>.html"):
        body, kind = form(("comment", None, b"words"), ("anything", name, picture))
        assert service.label(body, kind).json() == as_listed(labeller, picture)
        assert service.label(body, kind.replace("=", '="') + '"').status == 200


def test_a_form_without_a_file_or_with_several_is_refused(service: Service, picture: bytes) -> None:
    for parts, said in (
        ([], "damaged|no file"),
        ([("image", None, picture)], "no file"),
        ([("a", "a.png", picture), ("b", "b.png", picture)], "several files"),
        ([("n", None, b"")] * 17 + [("a", "a.png", picture)], "more than 16 fields"),
        ([("n", None, b"")] * 10_000, "more than 16 fields"),
        ([("a", "a.png", b"")] * 10_000, "several files"),
    ):
        error = service.label(*form(*parts)).refused(400, "bad-form")
        assert any(words in error for words in said.split("|")), error


def test_a_form_that_is_cut_off_or_damaged_is_refused(service: Service, picture: bytes) -> None:
    whole, kind = form(("image", "x.png", picture))
    for body in (
        b"", picture, whole[:10], whole[:60], whole[: len(whole) // 2], whole[:-10], whole[20:],
        whole.replace(b"name=", b"x="), whole.replace(b"Content-Disposition:", b"Content Disposition"), b"\0" * 1000,
        whole.replace(b"\r\n\r\n", b"\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", 1),
        whole.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 1),
    ):  # fmt: skip
        service.label(body, kind).refused(400, "bad-form")


@pytest.mark.parametrize(
    "kind",
    [
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        f"multipart/form-data; boundary={'x' * 71}",
        f"multipart/form-data; boundary={'x' * 1_000_000}",
        "multipart/form-data; boundary=\xff",
        "multipart/form-data; boundary*=utf-8''x",
        "multipart/form-data; boundary=other",
        f"multipart/form-data; boundary*{'9' * 5000}=x",
    ],
)
def test_a_form_whose_boundary_is_missing_or_wrong_is_refused(service: Service, picture: bytes, kind: str) -> None:
    body, _ = form(("image", "x.png", picture), boundary="x")
    service.label(body, kind).refused(400, "bad-form")


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable"])
def test_a_part_in_an_encoding_of_mail_is_labelled_or_refused(service: Service, picture: bytes, encoding: str) -> None:
    whole, kind = form(("image", "x.png", b"HERE"))
    whole = whole.replace(b"\r\n\r\n", f"\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n".encode(), 1)
    assert service.label(whole.replace(b"HERE", base64.b64encode(picture)), kind).status in (200, 400, 422)
    assert service.label(whole.replace(b"HERE", b"=\xff!%"), kind).status in (400, 422)


# --- /explain


def test_what_is_told_of_a_picture_is_what_the_command_tells(
    service: Service, trained: Path, tmp_path: Path, retrain: Callable[..., Ran]
) -> None:
    """Of labels that are asked for, too."""
    for query, options in (("", []), ("?label=blue&label=red", ["--label", "blue", "--label", "red"])):
        path = draw(tmp_path / f"{len(options)}.png", COLOURS["red"], 78)
        ran = retrain("explain", path, "--model", trained / "model", "--json", *options)
        command = json.loads(ran.out[0])
        told = service.explain(path.read_bytes(), query).json()
        near = [{key: row[key] for key in ("label", "similarity", "sha256")} for row in told.pop("neighbours")]
        assert near == [{key: row[key] for key in ("label", "similarity", "sha256")} for row in command.pop("neighbours")]
        own = {"said", "width", "height", "milliseconds", "version"}
        assert {**command, **{key: told[key] for key in own}} == {**told, "image": str(path), "output": None}
        assert (
            (told["width"], told["height"]) == (48, 40)
            and told["said"]
            and set(told["milliseconds"]) == {"waited", "worked"}
        )


def test_labels_that_the_model_does_not_have_are_refused(service: Service, picture: bytes) -> None:
    assert "gren" in service.explain(picture, "?label=gren").refused(400, "bad-request")
    for query in ("?label=", "?label=red&label=%00", "?label=%ff", "?label=<script>"):
        service.explain(picture, query).refused(400, "bad-request")


def test_without_a_map_the_rest_is_told_all_the_same(service: Service, picture: bytes) -> None:
    whole, rest = service.explain(picture).json(), service.explain(picture, "?map=no").json()
    assert (rest["maps"], rest["way"], rest["said"]) == ([], None, None)
    for name in ("labels", "runner_up", "unknown", "typicality", "notes", "neighbours", "width", "height"):
        assert rest[name] == whole[name]
    assert {one["kind"] for one in rest["remarks"]} <= {one["kind"] for one in whole["remarks"]}
    assert service.explain(picture, "?map=yes").json()["maps"] == whole["maps"]
    for value in ("x", "", "YES", "true"):
        assert "map" in service.explain(picture, f"?map={value}").refused(400, "bad-request")


def test_nearest_training_pictures_come_as_small_copies_unless_they_are_not_to_be_shown(
    service: Service, trained: Path, picture: bytes
) -> None:
    shown = service.explain(picture).json()["neighbours"]
    assert len(shown) == 3 and shown[0]["similarity"] >= shown[1]["similarity"] >= shown[2]["similarity"]
    for row in shown:
        kind, _, data = row["picture"].partition(",")
        assert kind.startswith("data:image/") and kind.endswith(";base64")
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    hidden = Service(trained / "model", pictures=False)
    assert hidden.explain(picture).json()["neighbours"] == [{**row, "picture": None} for row in shown]
    assert (service.ask("GET", "/about").json()["pictures"], hidden.ask("GET", "/about").json()["pictures"]) == (True, False)


def test_training_pictures_that_are_gone_or_changed_are_not_shown(trained: Path, tmp_path: Path, picture: bytes) -> None:
    moved = Path(shutil.copytree(trained, tmp_path / "tf_files"))
    first, second, third = Service(moved / "model").explain(picture).json()["neighbours"]
    paths = {row["sha256"]: row["path"] for row in rows_of(moved / "reports" / "split.csv")}
    (moved / paths[first["sha256"]]).unlink()
    draw(moved / paths[second["sha256"]], COLOURS["blue"], 5)  # another picture under its name
    found = Service(moved / "model").explain(picture).json()["neighbours"]
    assert found == [{**first, "picture": None}, {**second, "picture": None}, third]
    shutil.rmtree(moved / "reports")
    assert all(row["picture"] is None for row in Service(moved / "model").explain(picture).json()["neighbours"])


def rows_of(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_no_answer_names_a_path_or_an_address_of_this_machine(service: Service, trained: Path, picture: bytes) -> None:
    answers = [service.label(content(f"2-{name}")) for name in CUT]
    answers += [service.explain(picture), service.explain(picture, "?label=nowhere"), service.label(b"x")]
    answers += [service.ask("GET", path) for path in ("/about", "/metrics", "/openapi.json", "/v1/models/retrain/metadata")]
    answers += [service.predict({"instances": [{"b64": "AAAA"}]}), service.ask("GET", f"/{trained}/model/manifest.json")]
    for answer in answers:
        for word in (str(trained), trained.name, "/tmp", " 0x", "Traceback", ".py", "site-packages"):
            assert word.encode() not in answer.body, answer


def test_a_request_larger_than_it_may_be_is_refused(trained: Path, picture: bytes) -> None:
    small = Service(trained / "model", cores=1, limits=Limits(body=len(picture)))
    assert small.label(picture).status == 200
    small.label(picture + b"x").refused(413, "too-large")
    assert small.ask("POST", "/label", picture, [*typed("image/png"), ("content-length", str(len(picture)))]).status == 200
