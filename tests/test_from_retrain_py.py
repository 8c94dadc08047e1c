"""The page for those who come from retrain.py: every flag is there once, what it says of our options is so."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from retrain.cli import cli
from retrain.dataset.read import Example, Listing, grouped
from retrain.distortions import NAMES, draw
from retrain.settings import AugmentSettings

PAGE = Path(__file__).resolve().parent.parent / "docs" / "from-retrain-py.md"

RETRAIN_PY = (
    "image_dir output_graph intermediate_output_graphs_dir intermediate_store_frequency output_labels summaries_dir "
    "how_many_training_steps learning_rate testing_percentage validation_percentage eval_step_interval train_batch_size "
    "test_batch_size validation_batch_size print_misclassified_test_images bottleneck_dir final_tensor_name flip_left_right "
    "random_crop random_scale random_brightness tfhub_module saved_model_dir logging_verbosity checkpoint_path "
)
MAKE_IMAGE_CLASSIFIER = (
    "image_dir tfhub_module image_size saved_model_dir tflite_output_file labels_output_file summaries_dir "
    "assert_accuracy_at_least train_epochs do_fine_tuning batch_size learning_rate momentum dropout_rate set_memory_growth "
    "l1_regularizer l2_regularizer label_smoothing validation_split do_data_augmentation rotation_range horizontal_flip "
    "width_shift_range height_shift_range shear_range zoom_range distribution_strategy use_tf_data_input "
)
SECTIONS = {
    "The flags of retrain.py": RETRAIN_PY.split(),
    "The flags of make_image_classifier": MAKE_IMAGE_CLASSIFIER.split(),
}
THEIRS = {f"--{name}" for names in SECTIONS.values() for name in names}
WITHOUT = ("no", "not yet", "not needed", "TF_FILES, the argument", "`retrain evaluate`")  # cells that name no option

# An option of ours, perhaps with its command before it and a value behind, and what stands in parentheses after it.
OPTION = re.compile(r"`(?:retrain (?:(\w+) )?)?(--[a-z0-9-]+)(?![a-z0-9_-])(?: ([^`]+))?`(?: \(([^()]*)\))?")
ANY_OPTION = re.compile(r"--[a-z][a-z0-9_-]*")


def section(title: str, page: str) -> str:
    found = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    assert found, f"no section '{title}'"
    return found


def rows(title: str, page: str) -> Iterator[tuple[str, ...]]:
    """The cells of the table of a section, row by row, without its head."""
    lines = [line for line in section(title, page).splitlines() if line.startswith("|")]
    for line in lines[2:]:
        yield tuple(cell.strip() for cell in line.strip("|").split("|"))


def options(command: click.Command) -> dict[str, click.Option]:
    """Name, as it is typed -> option of a command of ours."""
    own = (one for one in command.params if isinstance(one, click.Option))
    return {name: one for one in own for name in (*one.opts, *one.secondary_opts)}


def meant(match: re.Match[str]) -> click.Option | None:
    """The option that is named: of `retrain train`, or else of some command, where none stands before it."""
    command, name = match[1], match[2]
    if command:
        return options(cli.commands[command]).get(name)
    if match[0].startswith("`retrain "):
        return options(cli).get(name)
    commands = sorted(cli.commands.items(), key=lambda row: row[0] != "train")
    return next((found for _, one in commands if (found := options(one).get(name))), None)


def default(option: click.Option) -> str:
    """An option's default, as the page has it."""
    value = option.to_info_dict()["default"]
    if option.is_flag:
        return "on" if value else "off"
    if value is not None:
        return str(value)
    said = re.search(r"\[default: (.*)]$", option.help or "")
    return said[1] if said else "none"


def wrong(page: str) -> list[str]:
    """What the page says of our options that is not so."""
    found = []
    for title in SECTIONS:
        for flag, here, _ in rows(title, page):
            named = list(OPTION.finditer(here))
            if not named and here not in WITHOUT:
                found.append(f"{flag}: '{here}' names no option")
            found += [f"{flag}: {match[2]} is without its default" for match in named if not match[4]]
    for match in OPTION.finditer(page):
        _, name, value, said = match.groups()
        if name in THEIRS:
            continue
        option = meant(match)
        if option is None:
            found.append(f"{name} does not exist")
            continue
        if said is not None and said.replace("`", "") != default(option):
            found.append(f"{name} has the default {default(option)}, not {said}")
        if value is not None:
            option.type.convert(value.strip("'"), option, click.Context(cli))
    # Those in longer lines and in blocks as well.
    ours = {name for command in (cli, *cli.commands.values()) for name in options(command)}
    return found + sorted(f"{name} is neither theirs nor ours" for name in set(ANY_OPTION.findall(page)) - THEIRS - ours)


@pytest.mark.parametrize(("title", "names"), SECTIONS.items(), ids=("retrain.py", "make_image_classifier"))
def test_every_flag_is_there_once_and_in_its_order(title: str, names: list[str]) -> None:
    assert [re.match(r"`--(\w+)`", row[0])[1] for row in rows(title, PAGE.read_text())] == names  # type: ignore[index]


def test_there_are_as_many_flags_as_the_tools_have() -> None:
    assert [len(set(names)) for names in SECTIONS.values()] == [25, 28]


def test_every_row_has_its_three_cells() -> None:
    assert [row for title in SECTIONS for row in rows(title, PAGE.read_text()) if len(row) != 3] == []


def test_what_it_says_of_our_options_is_so() -> None:
    assert wrong(PAGE.read_text()) == []


@pytest.mark.parametrize(
    ("right", "mistaken", "named"),
    [
        ("`--test` (`20`)", "`--test` (`10`)", "--test has the default 20, not `10`"),
        ("`--test` (`20`) | percent", "`--test` | percent", "`--testing_percentage` `10`: --test is without its default"),
        ("`--flip` (on)", "`--flip` (off)", "--flip has the default on, not off"),
        ("`--devices` (all GPUs)", "`--devices` (none)", "--devices has the default all GPUs, not none"),
        ("`retrain --debug` (off)", "`retrain --debug` (on)", "--debug has the default off, not on"),
        ("`--lr-find` proposes", "`--find-lr` proposes", "--find-lr does not exist"),
        ("retrain evaluate --assert-accuracy", "retrain classify --assert-accuracy", "--assert-accuracy does not exist"),
        ("--colour 0 --rotation 0", "--color 0 --rotation 0", "--color is neither theirs nor ours"),
        ("| `--momentum` `0.9` | no |", "| `--momentum` `0.9` | |", "`--momentum` `0.9`: '' names no option"),
    ],
)
def test_a_mistake_on_the_page_is_found(right: str, mistaken: str, named: str) -> None:
    page = PAGE.read_text()
    assert right in page
    assert named in wrong(page.replace(right, mistaken))


def test_a_value_that_an_option_refuses_is_found() -> None:
    with pytest.raises(click.BadParameter):
        wrong(PAGE.read_text().replace("`--crop 18`", "`--crop 118`"))


# Units


def seen(settings: AugmentSettings) -> tuple[np.ndarray, np.ndarray]:
    """Percent of each side that many views show: of the width, of the height."""
    drawn = draw(20_000, settings, np.random.default_rng(1))
    return 100 * drawn[:, NAMES.index("width")], 100 * drawn[:, NAMES.index("height")]


@pytest.mark.parametrize("theirs", [10, 20, 50])
def test_a_crop_is_translated_to_one_that_shows_as_much_on_average(theirs: int) -> None:
    crop = round(200 * theirs / (100 + theirs))
    width, height = seen(AugmentSettings(crop=crop, scale=0))
    assert (width == height).all()
    assert width.mean() == pytest.approx(100 / (1 + theirs / 100), abs=0.6)
    assert (width.min(), width.max()) == pytest.approx((100 - crop, 100), abs=0.1)


@pytest.mark.parametrize("theirs", [10, 20, 50])
def test_a_scale_is_translated_to_a_crop_with_the_same_limits(theirs: int) -> None:
    width, height = seen(AugmentSettings(crop=round(100 * theirs / (100 + theirs)), scale=0))
    assert (width == height).all()
    assert (width.min(), width.max()) == pytest.approx((100 / (1 + theirs / 100), 100), abs=0.5)


@pytest.mark.parametrize(("scale", "least", "most"), [(10, 90.9, 110), (20, 83.3, 120)])
def test_a_scale_of_ours_goes_both_ways_on_each_side(scale: int, least: float, most: float) -> None:
    width, height = seen(AugmentSettings(crop=0, scale=scale))
    assert [width.min(), height.min(), width.max(), height.max()] == pytest.approx([least, least, most, most], abs=0.1)
    assert abs(np.corrcoef(width, height)[0, 1]) < 0.05


def test_no_window_of_a_crop_goes_beyond_the_edge() -> None:
    drawn = draw(20_000, AugmentSettings(crop=50, scale=0), np.random.default_rng(1))
    width, x = drawn[:, NAMES.index("width")], drawn[:, NAMES.index("x")]
    assert (np.abs(x) + width / 2 <= 0.5 + 1e-9).all()


def test_brightness_means_the_same() -> None:
    brightness = draw(20_000, AugmentSettings(brightness=10), np.random.default_rng(1))[:, NAMES.index("brightness")]
    assert (brightness.min(), brightness.max()) == pytest.approx((0.9, 1.1), abs=0.001)


def test_the_figures_for_crop_and_scale_follow_from_the_formulas() -> None:
    text = " ".join(section("Units of the distortions", PAGE.read_text()).split())
    assert "`--crop` 200 C / (100 + C)" in text
    assert "`--crop` 100 S / (100 + S)" in text
    of_crop, of_scale = ({there: round(most * there / (100 + there)) for there in (10, 20, 50)} for most in (200, 100))
    assert f"20 is {of_crop[20]} and {of_scale[20]}, 50 is {of_crop[50]} and {of_scale[50]}" in text
    shown = {flag: here for flag, _, here in rows("Units of the distortions", PAGE.read_text())}
    assert shown["`--random_crop 10`"].startswith(f"`--crop {of_crop[10]}`")
    assert shown["`--random_scale 10`"].startswith(f"`--crop {of_scale[10]}`")


# What it says of names


def test_the_expression_for_nohash_groups_as_retrain_py_did() -> None:
    (expression,) = re.findall(r"--groups '(.*?nohash.*?)'", PAGE.read_text())
    paths = [
        "plants/rust/leaf7_nohash_1.jpg", "plants/rust/leaf7_nohash_2_nohash_3.jpg", "plants/rust/leaf8_nohash_1.jpg",
        "plants/mould/leaf7_nohash_1.jpg", "plants/rust/leaf7.jpg",
    ]  # fmt: skip
    listing = Listing(Path("plants"), ("mould", "rust"), tuple(Example(path, path.split("/")[1]) for path in paths), ())
    groups = [example.group for example in grouped(listing, expression).examples]
    theirs = [re.sub(r"_nohash_.*$", "", path) for path in paths]
    assert [one == groups[0] for one in groups] == [one == theirs[0] for one in theirs] == [True, True, False, False, False]
    assert groups[-1] == ""
