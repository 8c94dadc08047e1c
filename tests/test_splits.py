"""The gap between a random split and one that keeps together what belongs together, on features made for it."""

import numpy as np
import pytest

from retrain.evaluation.splits import NEAR_DUPLICATES, gaps, recommended
from retrain.settings import HeadSettings

SCENES, FRAMES, SIZE = 24, 8, 16


def scenes(alike: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str], tuple[str, ...]]:
    """Two classes; scenes tell them apart only by chance, and frames of one scene are alike by so much."""
    rng = np.random.default_rng(seed)
    scene = np.repeat(np.arange(SCENES), FRAMES)
    features = rng.normal(size=(SCENES, SIZE))[scene] * alike + rng.normal(size=(len(scene), SIZE))
    classes = (scene % 2).astype(np.int64)
    features[:, 0] += 2.0 * classes
    names = tuple(f"c{label}/scene{number}" for label, number in zip(classes, scene, strict=True))
    return features.astype(np.float32), classes, [f"{row:064x}" for row in range(len(scene))], names


def found(alike: float, groupings: dict[str, tuple[str, ...]] | None = None) -> list:
    features, classes, hashes, names = scenes(alike)
    groupings = {"folder": names} if groupings is None else groupings
    return gaps(features, classes, hashes, [], groupings, 1e-2, HeadSettings(steps=300))


def test_where_frames_of_a_scene_are_alike_a_random_split_flatters_and_the_folders_are_recommended() -> None:
    near, folder = result = found(3.0)
    assert near.grouping == NEAR_DUPLICATES and near.gap == pytest.approx(0, abs=0.08) and not near.matters
    assert folder.gap > 0.1 and folder.low > 0.01 and folder.low < folder.gap < folder.high and folder.groups == SCENES
    assert recommended(result) == "folder"


def test_where_they_are_not_nothing_is_recommended() -> None:
    assert recommended(found(0.0)) is None


def test_of_two_groupings_the_more_honest_is_recommended() -> None:
    _, _, _, names = scenes(3.0)
    halves = tuple(f"{name}-{row % 2}" for row, name in enumerate(names))
    assert recommended(found(3.0, {"name": halves, "folder": names})) == "folder"


@pytest.mark.parametrize(
    "groups", [("",) * (SCENES * FRAMES), tuple(map(str, range(SCENES * FRAMES))), ("a",) * SCENES * FRAMES]
)
def test_a_grouping_that_keeps_nothing_together_or_all_is_left_out(groups: tuple[str, ...]) -> None:
    assert [gap.grouping for gap in found(3.0, {"folder": groups})] == [NEAR_DUPLICATES]


def test_the_interval_counts_groups_not_pictures() -> None:
    """Each frame eight times over is no more evidence."""
    features, classes, hashes, names = scenes(3.0)
    plain = gaps(features, classes, hashes, [], {"folder": names}, 1e-2, HeadSettings(steps=300))[1]
    times = 4
    again = gaps(
        np.repeat(features, times, axis=0), np.repeat(classes, times), [f"{row:064x}" for row in range(times * len(hashes))],
        [], {"folder": tuple(np.repeat(names, times))}, 1e-2, HeadSettings(steps=300),
    )[1]  # fmt: skip
    assert again.high - again.low > 0.7 * (plain.high - plain.low)
