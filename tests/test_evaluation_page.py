"""The page of an evaluation: it shows what was measured, and nothing that was in a name gets out of its place."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrain.dataset import Skipped
from retrain.evaluation.as_json import as_json
from retrain.evaluation.evaluated import Evaluated, Mistake, Neighbour, Unknown
from retrain.evaluation.figures import measure
from retrain.evaluation.heat import Carried, Found, Heat, Rests
from retrain.evaluation.mistakes import MAX_CARDS, MAX_PAIRS, MAX_THUMBNAILS
from retrain.evaluation.page import MAX_ROWS, MAX_SKIPPED, render
from retrain.head import History
from retrain.report import plots, style
from retrain.report.matrix import MAX_CLASSES, chosen
from retrain.report.sorting import SCRIPT
from retrain.scores import softmax
from tests.drawing import draw
from tests.test_check_sheet import ATTRIBUTES, HOSTILE, TAGS, Page, nothing_got_in
from tests.test_report import contrast, numbers_in

MORE_TAGS = TAGS | {"rect", "script"}
MORE_ATTRIBUTES = ATTRIBUTES | {"aria-hidden", "data-value", "title"}
EVERY_SECTION = [
    "how", "classes", "sources", "top", "training", "calibration", "unknown", "pairs", "matrix", "mistakes",
]  # fmt: skip
FOUR = ("ant", "bee", "cat", "dog")


def evaluated(folder: Path, labels: tuple[str, ...] = FOUR, pictures: int = 80, near: bool = True, **more: Any) -> Evaluated:
    """What was found of random pictures, of which about a third is labelled wrongly; `near`: training pictures are known."""
    rng = np.random.default_rng(3)
    truth = np.arange(pictures) % len(labels)
    logits = rng.normal(0, 1, (pictures, len(labels)))
    logits[np.arange(pictures), truth] += 1.5
    scores = softmax(logits)
    said, own = scores.argmax(axis=1), scores[np.arange(pictures), truth]
    rows = sorted(np.flatnonzero(said != truth), key=lambda row: -scores[row].max())
    sources = [labels[row % 2] if row % 3 else "" for row in range(pictures)]
    found = Evaluated(
        Path("tf_files/model"), folder, "on 1 May 2026", "test pictures", ("Divided by content.",), "tiny", 1.25, labels,
        measure(scores, truth, labels, sources, softmax(logits, 2)),
        tuple(
            Mistake(
                f"{labels[truth[row]]}/{row}.png", labels[truth[row]], labels[said[row]], float(scores[row].max()),
                float(own[row]), bool(row % 2),
                tuple(Neighbour(labels[said[row]], 0.9 - n / 10, "red/1.png" if near else "") for n in range(4)),
            )
            for row in rows
        ),
        Unknown(0.05, pictures, 4, 2, 10, 9),
        History((0, 10, 20), (1.4, 0.5, 0.1), (1.4, 0.8, 0.7), (0.7, 0.2, 0.0), (0.75, 0.4, 0.35), "validation"),
        (Skipped("cat/x.png", "truncated", "the file ends too early"),),
    )  # fmt: skip
    return replace(found, **more)


def with_maps(found: Evaluated) -> Evaluated:
    """The same with maps of all mistakes, and of the first picture of each class, one of which its border carries."""
    rng, paths = np.random.default_rng(0), {label: f"{label}/{at}.png" for at, label in enumerate(found.labels)}
    wanted = {one.path: (one.predicted, one.label) for one in found.mistakes} | {
        path: (name,) for name, path in paths.items()
    }
    heat = {}
    for path, labels in wanted.items():
        file = found.data / path
        sha256 = hashlib.sha256(file.read_bytes() if file.exists() else b"").hexdigest()
        heat[path] = Heat(sha256, {label: rng.normal(0, 1, (7, 7)) for label in labels}, (0, 0, 1, 1))
    seen = rng.integers(0, 255, (64, 64, 3), np.uint8)
    rests = tuple(
        Rests(
            label, 20, at, 3.0, Carried(5.0 - at, 9, None if at else 4.0), None, 0.3, heat[path].grids[label], seen, (path,)
        )
        for at, (label, path) in enumerate(paths.items())
    )
    return replace(found, maps=Found(heat, rests, 2))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures") / "data"
    for number in range(80):
        draw(folder / FOUR[number % 4] / f"{number}.png", (200, 50, 40), number, (20, 20))
    draw(folder / "red" / "1.png", (1, 2, 3), 1)
    return folder


@pytest.fixture(scope="module")
def whole(data: Path) -> Evaluated:
    return evaluated(data)


def ids(page: Page) -> list[str]:
    return [found["id"] for found in page.all("section")]


def perfect(data: Path) -> Evaluated:
    """Two classes without a mistake, of which nothing else is known."""
    truth = np.array([0, 1, 1])
    figures = measure(np.eye(2)[truth], truth, FOUR[:2])
    return evaluated(
        data, FOUR[:2], figures=figures, mistakes=(), unknown=None, curve=None, skipped=(), split=(), temperature=1.0
    )


def test_every_part_has_its_section_and_a_link_in_the_contents(whole: Evaluated) -> None:
    page = Page(render(whole))
    assert ids(page) == EVERY_SECTION
    assert [found["href"][1:] for found in page.all("a") if found["href"][1:] in EVERY_SECTION] == EVERY_SECTION


def test_what_classes_rest_on_has_its_section_and_a_warning_on_top(whole: Evaluated) -> None:
    page = Page(render(with_maps(whole)))
    assert ids(page) == [*EVERY_SECTION, "rests"] and [found["href"] for found in page.all("a")].count("#rests") == 2
    known = [found["id"] for _, found in page.tags if "id" in found]
    assert len(set(known)) == len(known) and {found["href"][1:] for found in page.all("a")} <= set(known)
    assert all(found["alt"] and found["width"] and found["height"] for found in page.all("img"))
    for words in ("This class is known by its border: ant.", "÷ 148", "makes them × 55", "and 2 more classes", "9 of 20"):
        assert words in page.text, words


def test_the_header_has_the_figures_that_matter(whole: Evaluated) -> None:
    figures, text = whole.figures, Page(render(whole)).text
    low, high = figures.accuracy.interval
    for words in (
        f"accuracy 95 % interval {100 * low:.1f} to {100 * high:.1f} %{100 * figures.accuracy.value:.1f} %",
        f"pictures {len(whole.mistakes)} labelled wrongly80",
        f"macro F1 4 classes{figures.macro_f1:.3f}",
        f"log loss 0 is best{figures.log_loss:.3f}",
        f"calibration error 0 is best{100 * figures.calibration_error:.1f} %",
        "called unknown 4 pictures5.0 %",
    ):
        assert words in text, words


def test_what_was_measured_is_said(whole: Evaluated) -> None:
    page = Page(render(whole))
    for words in (
        "Divided by content.", "test pictures", "1 picture skipped", "cat/x.png: truncated, the file ends too early",
        f"and {100 * (whole.figures.uncalibrated_error or 0):.1f} % before", "the 3 highest",
        "4 of 80 were, 2 of which would have got a wrong label. Of 10 pictures of classes that the model does not have, 9",
        "validation", "similarity 0.90", "called unknown", "A row is a class, a column what its pictures were taken for.",
    ):  # fmt: skip
        assert words in page.text, words
    heard = [found["aria-label"] for found in page.all("svg") if "aria-label" in found]
    assert "Loss: pictures that were learnt from, from 1.4 to 0.1; others (validation), from 1.4 to 0.7" in heard
    assert "Error rate: pictures that were learnt from, from 70 % to 0 %; others (validation), from 75 % to 35 %" in heard
    assert any(words.startswith("Share that is right by score: ") for words in heard)


def test_what_there_is_nothing_of_is_left_out(data: Path) -> None:
    page = Page(render(perfect(data)))
    assert ids(page) == ["how", "classes", "calibration", "matrix"]
    assert "called unknown" not in page.text and "skipped" not in page.text and not page.all("img")
    assert "% before" not in page.text


def test_a_class_without_pictures_has_dashes_that_are_no_zeros(data: Path) -> None:
    truth = np.array([0, 0, 1])
    figures = measure(np.eye(3)[truth], truth, FOUR[:3])
    made = render(replace(perfect(data), labels=FOUR[:3], figures=figures))
    assert made.count('<td data-value="">–</td>') == 3 and "A dash: there is no such picture." in made
    assert "A dash" not in render(perfect(data))


def test_mistakes_stand_below_their_pair_the_surest_first(whole: Evaluated) -> None:
    made = render(whole)
    first = whole.figures.pairs[0]
    group = made.split('id="pair-1"')[1].split("<h3")[0]
    assert f"<bdi>{first.label}</bdi> taken for <bdi>{first.predicted}</bdi>" in group
    shown = [float(score) for score in re.findall(r"Score ([\d.]+) %", group)]
    assert len(shown) == first.count and shown == sorted(shown, reverse=True)
    assert made.count('href="#pair-1"') == 2  # from the table of pairs, and from the matrix


def test_every_link_leads_somewhere_and_no_id_is_there_twice(whole: Evaluated) -> None:
    page = Page(render(whole))
    known = [found["id"] for _, found in page.tags if "id" in found]
    links = {found["href"] for found in page.all("a")}
    assert len(set(known)) == len(known) and {link[1:] for link in links} <= set(known)
    assert {f"#row-{number}" for number in range(1, 5)} <= links


def test_training_pictures_are_shown_where_their_place_is_known_and_told_in_words_elsewhere(data: Path) -> None:
    page = Page(render(evaluated(data)))
    assert len(page.all("img")) == 4 * len(evaluated(data).mistakes) and "Most like it" not in page.text
    assert {found["alt"].split(",")[0] for found in page.all("img")} == {"the picture", "near it in training"}
    page = Page(render(evaluated(data, near=False)))
    assert len(page.all("img")) == len(evaluated(data).mistakes) and "Framed" not in page.text
    assert re.search(r"Most like it in training: \w+ \(similarity 0.90\), \w+ \(similarity 0.80\), \w+ \(sim", page.text)


def test_pictures_that_are_gone_leave_a_box_with_the_reason(whole: Evaluated, tmp_path: Path) -> None:
    page = Page(render(replace(whole, data=tmp_path)))
    assert not page.all("img") and len(page.all("div", "broken")) == 4 * len(whole.mistakes) and "missing" in page.text


def test_paths_are_shown_relative_to_the_data_folder(whole: Evaluated, data: Path) -> None:
    mistakes = tuple(replace(one, path=str(data / one.path)) for one in whole.mistakes)
    skipped = (Skipped(str(data / "cat" / "x.png"), "empty"), Skipped("/elsewhere/y.png", "missing"))
    made = render(replace(whole, mistakes=mistakes, skipped=skipped))
    assert made.count(str(data)) == 1 and "cat/x.png" in made and "/elsewhere/y.png" in made


def test_of_much_the_first_is_shown_and_the_rest_is_counted(data: Path, whole: Evaluated) -> None:
    many = (whole.mistakes[0],) * 500
    page = Page(render(replace(whole, mistakes=many, skipped=(Skipped("a", "empty"),) * (MAX_SKIPPED + 3))))
    assert len(page.all("li", "card")) == MAX_CARDS and f"and {500 - MAX_CARDS} more mistakes" in page.text
    assert "and 3 more pictures, all in the JSON file beside this page" in page.text
    page = Page(render(evaluated(data, tuple(f"class {n}" for n in range(MAX_ROWS + 9)), 3000)))
    assert len(page.all("img")) + len(page.all("div", "broken")) <= MAX_THUMBNAILS
    assert "and 9 more classes, all in the JSON file beside this page" in page.text
    assert len(page.all("h3")) and "Other pairs" in page.text
    assert {f"pair-{MAX_PAIRS}", "pair-others"} <= {found.get("id") for found in page.all("h3")}
    assert f"Of {MAX_ROWS + 9} classes, the {MAX_CLASSES} with the most mistakes" in page.text
    assert len([one for one in page.all("tr") if "id" in one]) == MAX_CLASSES
    assert len(page.all("span", "up")) == MAX_CLASSES + 1 and "others" in page.text


def test_a_row_of_a_matrix_that_leaves_classes_out_still_adds_up(data: Path) -> None:
    found = evaluated(data, tuple(f"class {n}" for n in range(MAX_CLASSES + 1)), 900)
    for row in re.findall(r'<tr id="row-(\d+)">(.*?)</tr>', render(found)):
        cells = [int(number) for number in re.findall(r">(\d+)<", row[1])]
        assert sum(cells) == found.figures.confusion[int(row[0]) - 1].sum()


def test_of_many_classes_those_with_the_most_mistakes_made_or_suffered_are_shown_in_their_order() -> None:
    counts = np.diag(range(MAX_CLASSES + 9))  # many pictures that are right are no reason
    counts[40 - 5, 2] = 9
    counts[3:MAX_CLASSES, 0] = 1
    assert chosen(counts.tolist()) == [0, 2, *range(3, MAX_CLASSES), 35]
    assert chosen(counts[:MAX_CLASSES, :MAX_CLASSES].tolist()) == list(range(MAX_CLASSES))


def test_a_page_of_hundreds_of_classes_with_long_names_stays_below_5_mb(tmp_path: Path) -> None:
    labels = tuple(f"{'&' * 200}{number}" for number in range(300))
    for number, label in enumerate(labels):
        draw(tmp_path / label / f"{number}.png", (99, 99, 99), number, (150, 150))
    found = evaluated(tmp_path, labels, 600)
    near = tuple(Neighbour(labels[n], 0.5, f"{labels[n]}/{n}.png") for n in range(3))
    mistakes = tuple(replace(one, neighbours=near) for one in found.mistakes)
    found = with_maps(replace(found, mistakes=mistakes[:40]))
    rests = tuple(replace(one, examples=one.examples * 3) for one in found.maps.rests[:24])
    found = replace(found, mistakes=mistakes, maps=replace(found.maps, rests=rests))
    assert 1_000_000 < len(render(found)) < 5_000_000


@pytest.mark.parametrize("hostile", HOSTILE)
def test_names_stay_text(data: Path, hostile: str) -> None:
    labels = (hostile, "red", f"{hostile} 2", "blue")
    found = evaluated(data, labels, model=Path(hostile), data=Path(hostile), when=hostile, judged_on=hostile)
    mistakes = tuple(replace(one, neighbours=(Neighbour(hostile, 0.5, hostile),)) for one in found.mistakes[:4])
    mistakes += tuple(replace(one, neighbours=(Neighbour(hostile, 0.5),)) for one in found.mistakes[4:])
    curve = replace(found.curve, held_out_are=hostile)  # type: ignore[type-var]
    skipped = (Skipped(hostile, hostile, hostile),)
    made = render(replace(found, mistakes=mistakes, curve=curve, skipped=skipped, split=(hostile,), backbone=hostile))
    page = Page(made)
    made.encode("utf-8")
    nothing_got_in(page, made, MORE_TAGS, MORE_ATTRIBUTES, "[a-z0-9-]+", "share|heat")
    assert json.loads(json.dumps(as_json(found), allow_nan=False))["classes"][hostile]


def test_the_one_script_is_the_one_that_the_policy_names(whole: Evaluated) -> None:
    made = render(whole)
    scripts = re.findall(r"<script>(.*?)</script>", made, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert scripts == [SCRIPT] and "innerHTML" not in SCRIPT and "</" not in SCRIPT and "<!--" not in SCRIPT
    policy = next(found["content"] for found in Page(made).all("meta") if "http-equiv" in found)
    assert policy.startswith("default-src 'none'; img-src data:") and policy.endswith(f"script-src 'sha256-{digest}'")


def test_the_page_can_be_read_with_a_keyboard_and_aloud(whole: Evaluated) -> None:
    page = Page(render(whole))
    assert [len(page.all(landmark)) for landmark in ("header", "nav", "main", "footer", "h1")] == [1] * 5
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(found["alt"] and found["width"] and found["height"] for found in page.all("img"))
    assert all(found.get("aria-hidden") or (found["aria-label"] and found["role"] == "img") for found in page.all("svg"))
    assert all("scope" in found for found in page.all("th")) and len(page.all("caption")) == len(page.all("table"))


def test_columns_that_sort_by_number_have_a_number_in_every_cell(whole: Evaluated) -> None:
    rows = re.findall(r'<tr><th scope="row">(?:(?!</tr>).)*data-value.*?</tr>', render(whole))
    values = [value for row in rows for value in re.findall(r'data-value="([^"]*)"', row)]
    assert len(values) > 30 and all(not value or math.isfinite(float(value)) for value in values)


def test_the_same_input_gives_the_same_bytes(whole: Evaluated, data: Path) -> None:
    assert render(whole) == render(evaluated(data))
    assert json.dumps(as_json(whole)) == json.dumps(as_json(evaluated(data)))


def test_the_record_has_everything_and_only_numbers_that_json_has(whole: Evaluated) -> None:
    curve = replace(whole.curve, held_out_loss=(math.nan, math.inf, 0.7))  # type: ignore[type-var]
    found = as_json(replace(whole, curve=curve))
    record = json.loads(json.dumps(found, allow_nan=False))
    assert (record["format"], record["version"]) == ("retrain-evaluation", 1)
    assert record["accuracy"]["pictures"] == 80 and len(record["mistakes"]) == len(whole.mistakes)
    assert record["training"]["held_out_loss"] == [None, None, 0.7] and record["top_k"].keys() == {"2", "3"}
    assert sum(sum(row.values()) for row in record["confusion"].values()) == 80
    assert set(record["classes"]) == set(FOUR) and record["unknown"]["found"] == 9 and len(record["sources"]) == 2
    assert as_json(perfect(whole.data))["unknown"] is None


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_figures_stand_out_from_the_colours_of_the_matrix(scheme: int) -> None:
    colours = [
        dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", re.findall(r":root \{([^}]*)\}", looks)[scheme]))
        for looks in (style.CSS, style.FIGURES)
    ]
    assert all(contrast(colours[0]["text"], colours[1][back]) >= 4.5 for back in ("hit", "miss"))
    assert contrast(colours[1]["second"], colours[0]["back"]) >= 3
    assert style.FIGURES.count("{") == style.FIGURES.count("}") and not re.search(r"url\(|@import|</", style.FIGURES)


SHARES = st.floats(0, 1)
SPOTS = st.lists(
    st.builds(plots.Spot, SHARES, SHARES, st.integers(1, 10**7), SHARES, SHARES, SHARES, SHARES), min_size=1, max_size=15
)


@given(SPOTS)
def test_a_reliability_diagram_of_any_figures_stays_in_its_frame(spots: list[plots.Spot]) -> None:
    drawn = plots.reliability(spots)
    assert all(math.isfinite(value) and 0 <= value <= 414 for value in numbers_in(drawn))
    assert drawn.count("<circle") == drawn.count("<rect") == len(spots)


LOSSES = st.floats(0, 1e300) | st.sampled_from([math.nan, math.inf])


@given(st.lists(st.tuples(st.integers(0, 10**7), LOSSES, LOSSES), min_size=1, max_size=20))
def test_lines_of_any_figures_stay_in_their_frame(rows: list[tuple[int, float, float]]) -> None:
    lines = [plots.Line("learnt", [row[1] for row in rows]), plots.Line("held out", [row[2] for row in rows])]
    drawn = plots.lines("Loss", "loss", [row[0] for row in rows], lines)
    drawn = drawn.replace(' points=""', "")  # a line of which nothing is finite
    values = numbers_in(drawn)
    assert all(math.isfinite(value) and 0 <= value <= 360 for value in values)


@pytest.mark.parametrize(
    ("most", "marks"),
    [
        (0.9, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (2.5, ["0", "0.5", "1", "1.5", "2", "2.5"]),
        (7, ["0", "2", "4", "6", "8"]),
    ],
)
def test_a_scale_has_round_marks(most: float, marks: list[str]) -> None:
    line = plots.Line("a", [0.0, most])
    drawn = plots.lines("Loss", "loss", [0, 1], [line, line])
    assert re.findall(r'text-anchor="end">([^<]*)', drawn) == marks
