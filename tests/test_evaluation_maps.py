"""What an evaluation says of what labels rest on: maps over pictures, and borders and backgrounds that carry a class."""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrain import artifact
from retrain.backbones import Backbone
from retrain.evaluation import maps, rests
from retrain.evaluation.as_json import as_json
from retrain.evaluation.drawn import of_picture
from retrain.evaluation.evaluated import Evaluated
from retrain.evaluation.heat import FEWEST, MATTERS, Carried, Found, Heat, Rests
from retrain.evaluation.look import File, Looked, Task, worker
from retrain.evaluation.maps import MISTAKES, OF_ALL, OF_CLASS, Candidates, sampled
from retrain.evaluation.page import render
from retrain.evaluation.run import evaluate
from retrain.explain import Explainer
from retrain.heat.cover import Colour, ground, on_ground, with_border_of, without_border
from retrain.label import Labeller
from retrain.pipeline import train
from retrain.progress import SILENT
from retrain.report.thumbnails import SIDE, make
from retrain.runner import Runner
from retrain.settings import HeadSettings, SplitSettings
from tests.conftest import Ran
from tests.drawing import draw_classes
from tests.test_check_sheet import HOSTILE, Page, nothing_got_in
from tests.test_evaluate import QUICK, draw_mixed
from tests.test_evaluation_page import MORE_ATTRIBUTES, MORE_TAGS, evaluated

WHITE, BLUE, GREEN, RED = (255, 255, 255), (120, 160, 255), (40, 160, 60), (200, 50, 40)
SURE = HeadSettings(steps=300, l2=1e-3)


def draw_told_by(data: Path, how: dict[str, tuple[tuple[int, int, int], tuple[int, int, int] | None, bool]]) -> Path:
    """Write 20 pictures of each class: the colour around the middle, that of the middle (None: any), framed or not."""
    rng = np.random.default_rng(5)
    for name, (around, middle, framed) in how.items():
        (data / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.full((64, 64, 3), around, np.uint8)
            colour = rng.integers(0, 255, 3) if middle is None else np.array(middle)
            top, left = rng.integers(10, 26, 2)
            spread = rng.normal(0, 40, (28, 28, 3)) + rng.normal(0, 40, (4, 4, 1)).repeat(7, 0).repeat(7, 1)
            pixels[top : top + 28, left : left + 28] = np.clip(colour + spread, 0, 255)
            if framed:
                pixels[:4], pixels[-4:], pixels[:, :4], pixels[:, -4:] = 0, 0, 0, 0
            Image.fromarray(pixels).save(data / name / f"{number}.png")
    return data.parent


@pytest.fixture(scope="module")
def by_frame(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    how = {"framed": (WHITE, None, True), "green": (WHITE, GREEN, False), "red": (WHITE, RED, False)}
    folder = draw_told_by(tmp_path_factory.mktemp("frame") / "tf_files" / "data", how)
    train(folder, SplitSettings(test=40), SURE, tiny)
    return folder


@pytest.fixture(scope="module")
def by_middle(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    """All of them framed: a frame tells nothing."""
    how = {"blue": (WHITE, (40, 60, 200), True), "green": (WHITE, GREEN, True), "red": (WHITE, RED, True)}
    folder = draw_told_by(tmp_path_factory.mktemp("middle") / "tf_files" / "data", how)
    train(folder, SplitSettings(test=40), SURE, tiny)
    return folder


@pytest.fixture(scope="module")
def by_ground(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    how = {"any": (BLUE, None, False), "green": (WHITE, GREEN, False), "red": (WHITE, RED, False)}
    folder = draw_told_by(tmp_path_factory.mktemp("ground") / "tf_files" / "data", how)
    train(folder, SplitSettings(test=40), SURE, tiny)
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> tuple[Path, Evaluated]:
    """A model that errs, and what its evaluation found."""
    folder = tmp_path_factory.mktemp("mixed") / "tf_files"
    draw_mixed(folder / "data")
    train(folder, SplitSettings(test=35), QUICK, tiny)
    return folder, evaluate(folder)


@pytest.fixture
def copy(mixed: tuple[Path, Evaluated], tmp_path: Path) -> tuple[Path, Evaluated]:
    """The same, to be spoilt; the pictures of what was found lie here, too."""
    shutil.copytree(mixed[0], tmp_path / "tf_files")
    return tmp_path / "tf_files", evaluate(tmp_path / "tf_files")


def test_a_class_that_only_its_frame_tells_is_flagged_and_no_other(by_frame: Path, retrain: Callable[..., Ran]) -> None:
    ran = retrain("evaluate", by_frame)
    assert ran.code == 0 and "known by:          the border of framed (see the report)" in ran.out
    record = json.loads((by_frame / "reports" / "evaluate.json").read_text())["rests_on"]
    assert {label: row["carried_by"] for label, row in record.items()} == {"framed": ["border"], "green": [], "red": []}
    assert min(record["framed"]["border"]["fall_without"], record["framed"]["border"]["rise_of_others"]) > MATTERS
    made = (by_frame / "reports" / "evaluate.html").read_text()
    page = Page(made)
    assert len(page.all("p", "flag")) == 2 and page.text.count("This class is known by its border: framed.") == 2
    assert [found["href"] for found in page.all("a")].count("#rests") == 2  # in the contents, and in the warning on top


def test_classes_that_their_middle_tells_are_not_flagged_though_they_have_frames(
    by_middle: Path, retrain: Callable[..., Ran]
) -> None:
    ran = retrain("evaluate", by_middle)
    assert ran.code == 0 and not any(line.startswith("known by") for line in ran.out)
    found = evaluate(by_middle).maps
    assert [one.label for one in found.rests] == ["blue", "green", "red"] and not found.flagged
    assert all(one.pictures >= FEWEST and one.border for one in found.rests)
    assert "known by" not in (by_middle / "reports" / "evaluate.html").read_text()


def test_a_class_that_only_its_background_tells_is_flagged_and_no_other(by_ground: Path) -> None:
    found = evaluate(by_ground).maps
    assert found.flagged == {"background": ["any"]}
    assert [one.background is not None for one in found.rests] == [True, False, False]
    text = Page((by_ground / "reports" / "evaluate.html").read_text()).text
    assert "This class is known by its background: any." in text and "On the background of the others the odds are ÷" in text


def test_the_map_of_a_mistake_is_of_its_label_and_of_the_one_that_it_got(mixed: tuple[Path, Evaluated]) -> None:
    folder, found = mixed
    model = artifact.load(folder / "model").artifact
    explainer, labeller = Explainer(Labeller(model)), Labeller(model)
    assert found.mistakes and {one.path for one in found.mistakes} <= set(found.maps.heat)
    for one in found.mistakes:
        heat, data = found.maps.heat[one.path], Path(one.path).read_bytes()
        assert list(heat.grids) == [one.predicted, one.label] and heat.box == (0, 0, 1, 1)
        expected = explainer.explain(data, [one.predicted, one.label])
        for its, (label, grid) in zip(expected.maps, heat.grids.items(), strict=True):
            assert its.label == label and np.allclose(its.grid, grid, atol=1e-4)
            place, (sight,) = model.labels.index(label), labeller.look(data)[1]
            assert grid.mean() == pytest.approx(sight.logits[place] - model.members[0].bias[place], abs=1e-3)


def test_on_the_page_two_maps_lie_beside_each_mistake_and_say_what_they_show(mixed: tuple[Path, Evaluated]) -> None:
    _, found = mixed
    made = render(found)
    cards = re.findall(r'<li class="card">(?:(?!</li>).)*</li>', made.split('id="mistakes"')[1].split("</section>")[0])
    assert len(cards) == len(found.mistakes)
    heard = [re.findall(r'<img[^>]* width="(\d+)" height="(\d+)" alt="([^"]*)"', card) for card in cards]
    for images in heard:
        (wide, high, first), got, own = images[:3]
        label = first.removeprefix("the picture, in class ")
        assert got[:2] == own[:2] == (wide, high), "a map has the size of its picture"
        assert own[2].startswith(f"map of what speaks for {label}: ")
        assert got[2].startswith("map of what speaks for ") and not got[2].startswith(own[2].split(":")[0])
        assert [alt.split(",")[0] for *_, alt in images[3:]] == ["near it in training"] * 3
    assert "Next to the first ones lie two maps" in made and 'class="cards six"' in made


def test_of_each_class_there_is_a_mean_map_with_words_and_pictures(mixed: tuple[Path, Evaluated]) -> None:
    _, found = mixed
    for one in found.maps.rests:
        assert one.pictures and one.grid is not None and one.seen is not None and one.seen.shape == (64, 64, 3)
        grids = [found.maps.heat[path].grids[one.label] for path in one.examples]
        assert 1 <= len(grids) <= 3 and all(grid.shape == one.grid.shape for grid in grids)
        assert {Path(path).relative_to(found.data).parts[0] for path in one.examples} == {one.label}
    page = Page(render(found))
    alts = [image["alt"] for image in page.all("img")]
    for one in found.maps.rests:
        assert f"mean map of what speaks for {one.label}: {one.region}" in alts
    assert "What each class rests on" in page.text


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_bytes(b"words"), None])
def test_a_picture_that_is_gone_or_another_one_is_shown_without_maps(
    copy: tuple[Path, Evaluated], spoil: Callable[[Path], object] | None
) -> None:
    """Spoilt after the look, before the page is drawn; None: another picture lies there."""
    _, found = copy
    victim = Path(found.mistakes[0].path)
    if spoil is None:
        Image.new("RGB", (40, 40), (9, 9, 9)).save(victim)
    else:
        spoil(victim)
    assert of_picture(str(victim), found.maps.heat[str(victim)], 1.0) == {}
    page = Page(render(replace(found, mistakes=found.mistakes[:1])))
    assert not any(image["alt"].startswith("map of") and victim.name in image["alt"] for image in page.all("img"))
    assert "Next to the first ones lie two maps" not in page.text


def test_a_picture_that_changed_before_the_look_has_no_map(mixed: tuple[Path, Evaluated]) -> None:
    folder, found = mixed
    work = worker(artifact.load(folder / "model").artifact)
    one = found.mistakes[0]
    file = File(one.path, one.label, found.maps.heat[one.path].sha256)
    assert work(Task(file, (one.label,))) is not None
    assert work(Task(file._replace(sha256="0" * 64), (one.label,))) is None
    assert work(Task(file._replace(path=f"{one.path}.gone"), (one.label,))) is None
    assert work(Task(file, (one.label,), frame=file._replace(path="gone"))) is None


def test_a_network_without_spatial_map_has_no_maps_but_its_borders_are_tried(
    by_frame: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "features_and_map", lambda self, pixels: (self.features(pixels), None))
    found = evaluate(by_frame, output=tmp_path / "page.html").maps
    assert not found.mapped and not found.heat and found.flagged == {"border": ["framed"]}
    page = Page((tmp_path / "page.html").read_text())
    assert "has no spatial map, so none are drawn" in page.text and not any(
        "map of" in one["alt"] for one in page.all("img")
    )


def test_a_network_that_needs_tensorflow_is_not_run_again(mixed: tuple[Path, Evaluated]) -> None:
    model = artifact.load(mixed[0] / "model").artifact
    (member,) = model.members
    other = replace(model, members=(replace(member, network=replace(member.network, engine="tensorflow-float32")),))
    assert maps.look(other, [], Candidates([File("a", "red", "")], []), lambda *_: iter(()), None) == Found()  # type: ignore


def test_runs_of_the_network_are_bounded(mixed: tuple[Path, Evaluated]) -> None:
    model, found = artifact.load(mixed[0] / "model").artifact, mixed[1]
    ran: list[Task] = []

    def run(_make: object, tasks: list[Task]) -> Iterator[None]:
        ran.extend(tasks)
        return iter([None] * len(tasks))

    many = [File(f"{label}/{number}", label, f"{number:04}") for label in model.labels for number in range(90)]
    worst = [(File(one.path, one.label, ""), one) for one in found.mistakes] * 30
    nothing = maps.look(model, worst, Candidates(many, many), run, SILENT)  # type: ignore[arg-type]
    assert len([task for task in ran if task.bare]) == 3 * OF_CLASS and len(ran) == 3 * OF_CLASS + MISTAKES
    assert [one.pictures for one in nothing.rests] == [0, 0, 0] and not nothing.heat and not nothing.flagged
    text = Page(render(replace(found, maps=nothing))).text
    assert "What each class rests on" in text and "–" in text


def test_of_each_class_some_are_taken_those_first_that_were_not_learnt_from() -> None:
    def files(label: str, count: int, first: str) -> list[File]:
        return [File(f"{label}/{first}{number}", label, f"{first}{number:03}") for number in range(count)]

    tested, learnt = files("a", 50, "t") + files("b", 3, "t"), files("a", 9, "l") + files("b", 9, "l") + files("c", 40, "l")
    chosen, left = sampled(Candidates(tested, learnt), ("a", "b", "c", "d"))
    assert left == 0 and {label: len(row) for label, row in chosen.items()} == {"a": 20, "b": 12, "c": 20, "d": 0}
    assert all(file in tested for file in chosen["a"]) and chosen["b"][:3] == tested[50:]
    assert sampled(Candidates(tested[::-1], learnt[::-1]), ("a", "b", "c", "d"))[0] == chosen
    names = tuple(f"{number:03}" for number in range(100))
    many = [file for at, name in enumerate(names) for file in files(name, 5 + at % 2, "t")]
    chosen, left = sampled(Candidates(many, []), names)
    assert left == 76 and len(chosen) == 24 and sum(map(len, chosen.values())) <= OF_ALL
    assert all(int(name) % 2 and len(row) == FEWEST for name, row in chosen.items())


def test_of_a_model_that_was_judged_in_folds_all_were_learnt_from(tmp_path: Path, tiny: Backbone) -> None:
    draw_mixed(tmp_path / "tf_files" / "data")
    train(tmp_path / "tf_files", SplitSettings(folds=3), QUICK, tiny)
    found = evaluate(tmp_path / "tf_files")
    assert all(one.pictures == one.learnt > 0 for one in found.maps.rests)
    assert {one.path for one in found.mistakes} <= set(found.maps.heat)


def test_pictures_from_elsewhere_are_looked_at_where_they_lie(mixed: tuple[Path, Evaluated], tmp_path: Path) -> None:
    found = evaluate(mixed[0], data=draw_classes(tmp_path / "fresh", 6, 148_000), output=tmp_path / "page.html")
    assert found.maps.rests and all(one.learnt == 0 for one in found.maps.rests)
    assert all(Path(path).is_relative_to(tmp_path / "fresh") for path in found.maps.heat)


def test_without_its_border_a_picture_shows_what_lies_just_within() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    bare = without_border(pixels)
    assert bare.shape == pixels.shape and np.array_equal(bare[4:-4, 8:-8], pixels[4:-4, 8:-8])
    assert (bare[:5, 50] == pixels[4, 50]).all() and (bare[25, -9:] == pixels[25, -9]).all()
    other = 255 - pixels
    made = with_border_of(pixels, other)
    assert np.array_equal(made[4:-4, 8:-8], pixels[4:-4, 8:-8]) and np.array_equal(made[:4], other[:4])
    assert np.array_equal(made[:, -8:], other[:, -8:]) and np.array_equal(other, 255 - pixels), "it is left as it was"
    white = np.full((20, 20, 3), 255, np.uint8)
    assert np.array_equal(without_border(white), white)


def test_a_background_is_of_one_colour_and_can_be_changed_whatever_frame_is_around_it() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8)
    assert ground(noise) is None
    pixels = np.full((50, 50, 3), BLUE, np.uint8)
    pixels[20:30, 20:30] = 7
    pixels[:3] = pixels[-3:] = 0
    assert ground(pixels) == BLUE
    made = on_ground(pixels, BLUE, GREEN)
    assert (made[10, 10] == GREEN).all() and (made[25, 25] == 7).all() and (made[0] == 0).all()
    pixels[5:45, 5:45] = noise[5:45, 5:45]
    assert ground(pixels) is None, "a narrow margin is no background"


@pytest.mark.parametrize(
    ("colours", "odd"),
    [
        ({"a": WHITE, "b": WHITE, "c": BLUE}, {"c": (BLUE, WHITE)}),
        ({"a": WHITE, "b": BLUE}, {"a": (WHITE, BLUE), "b": (BLUE, WHITE)}),
        ({"a": WHITE, "b": WHITE, "c": (240, 240, 240)}, {}),
        ({"a": WHITE, "b": None, "c": None}, {}),
        ({"a": WHITE, "b": WHITE, "c": WHITE, "d": BLUE, "e": BLUE, "f": None}, {"d": (BLUE, WHITE), "e": (BLUE, WHITE)}),
        ({"a": WHITE, "b": None, "c": BLUE}, {"a": (WHITE, BLUE), "c": (BLUE, WHITE)}),
    ],
)
def test_a_background_is_tried_that_fewer_than_half_of_the_others_have(
    colours: dict[str, Colour | None], odd: dict[str, tuple[Colour, Colour]]
) -> None:
    right = {label: [File(f"{label}{number}", label, "") for number in range(FEWEST)] for label in colours}
    looked = {file.path: Looked(None, 1.0, 1.0, np.zeros(0), colours[file.label]) for row in right.values() for file in row}
    assert maps.backgrounds(right, looked) == odd


@pytest.mark.parametrize(
    ("logarithm", "words"),
    [(0, "× 1.0"), (-0.01, "× 1.0"), (math.log(3.2), "× 3.2"), (-math.log(20), "÷ 20"), (-99, "÷ more than 1,000")],
)
def test_odds_are_told_in_times(logarithm: float, words: str) -> None:
    assert rests.times(logarithm) == words


def test_what_carries_a_class_must_take_the_label_from_its_pictures_and_to_others() -> None:
    much, little = MATTERS + 0.1, MATTERS - 0.1
    assert Carried(much, 1, much).both_ways
    assert not any(Carried(*of).both_ways for of in ((much, 1, little), (little, 1, much), (much, 1, None)))
    one = Rests("a", FEWEST, border=Carried(much, 1, much), background=Carried(much, 1, much))
    assert one.flagged == ("border", "background") and replace(one, pictures=FEWEST - 1).flagged == ()
    assert replace(one, lead=3.1 * much).flagged == () and replace(one, lead=2.9 * much).flagged == one.flagged
    assert Found(rests=(one, replace(one, label="b", border=None))).flagged == {"border": ["a"], "background": ["a", "b"]}


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_of_classes_that_are_flagged_stay_text(tmp_path: Path, hostile: str) -> None:
    labels = (hostile, "red", f"{hostile} 2", "blue")
    of = Carried(9.0, 1, 9.0)
    grid, seen = np.eye(4), np.zeros((64, 64, 3), np.uint8)
    found = evaluated(tmp_path, labels, data=Path(hostile))
    shown = tuple(Rests(label, 9, 2, 1.0, of, of, 0.5, grid, seen, (hostile,)) for label in labels)
    heat = {one.path: Heat("0" * 64, {one.predicted: grid, one.label: grid}, (0, 0, 1, 1)) for one in found.mistakes}
    heat[hostile] = Heat("0" * 64, {hostile: grid}, (0, 0, 1, 1))
    found = replace(found, maps=Found(heat, shown, 3))
    made = render(found)
    nothing_got_in(Page(made), made, MORE_TAGS, MORE_ATTRIBUTES, "[a-z0-9-]+", "share|heat")
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["rests_on"][hostile]["carried_by"] == [
        "border", "background",
    ]  # fmt: skip
    assert "and 3 more classes" in Page(made).text


@pytest.mark.parametrize("size", [(4, 400), (400, 4), (1, 1), (300, 200)])
def test_a_map_fits_a_picture_of_any_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (200, 90, 10)).save(tmp_path / "a.png")
    sha256 = hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest()
    for box in ((0.0, 0.0, 1.0, 1.0), (0.499, 0.499, 0.5, 0.5), (0.999, 0.999, 1.0, 1.0)):
        made = of_picture(str(tmp_path / "a.png"), Heat(sha256, {"a": np.eye(7), "b": -np.eye(7)}, box), 1.0)
        usual = make(tmp_path / "a.png")
        assert {(one.width, one.height) for one in made.values()} == {(usual.width, usual.height)}
        assert max(usual.width, usual.height) <= SIDE
