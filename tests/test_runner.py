"""A flatbuffer and arrays of pixels in, features out; work spread over threads."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrain.backbones import Backbone
from retrain.errors import ModelRefused
from retrain.runner import Runner, cores, run_locally
from tests.conftest import TINY_FEATURES, TINY_SIZE


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (9, TINY_SIZE, TINY_SIZE, 3), dtype=np.uint8)


# --- Runner


def test_features_equal_those_of_keras(tiny: Backbone, tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    expected, expected_map = tiny.build(tiny.weights()).predict_on_batch(pixels.astype(np.float32))
    features, spatial = Runner(tiny_flatbuffer).features_and_map(pixels)
    assert features.shape == (9, TINY_FEATURES) and features.dtype == np.float32
    assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(spatial - expected_map).max() <= 1e-5 * np.abs(expected_map).max()


def test_a_batch_gives_what_its_pictures_give_one_by_one(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    runner = Runner(tiny_flatbuffer)
    one_by_one = [runner.features(pixels[row : row + 1])[0] for row in reversed(range(len(pixels)))]
    assert np.array_equal(runner.features(pixels), one_by_one[::-1])


def test_features_are_the_mean_of_the_map_with_or_without_it(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    runner = Runner(tiny_flatbuffer)
    features, spatial = runner.features_and_map(pixels)
    assert spatial.ndim == 4 and np.allclose(spatial.mean(axis=(1, 2)), features, rtol=1e-5, atol=1e-6)
    assert np.array_equal(runner.features(pixels), features)


def test_bytes_and_floats_of_the_same_value_give_the_same_features(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    runner = Runner(tiny_flatbuffer)
    assert runner.image_size == TINY_SIZE
    assert np.array_equal(runner.features(pixels), runner.features(pixels.astype(np.float32)))


def test_no_pictures_give_no_features(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    runner = Runner(tiny_flatbuffer)
    assert runner.features(pixels[:0]).shape == (0, TINY_FEATURES)
    assert runner.features_and_map(pixels[:0])[0].shape == (0, TINY_FEATURES)


def test_what_runner_gives_is_not_changed_by_the_next_call(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    runner = Runner(tiny_flatbuffer)
    first = runner.features(pixels[:1])
    kept = first.copy()
    runner.features(pixels[1:])
    assert np.array_equal(first, kept)


def test_more_threads_give_the_same_bits(tiny_flatbuffer: bytes, pixels: np.ndarray) -> None:
    alone = Runner(tiny_flatbuffer).features(pixels)
    assert np.array_equal(alone, Runner(tiny_flatbuffer, threads=4).features(pixels))
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: Runner(tiny_flatbuffer).features(pixels), range(8)):
            assert np.array_equal(alone, together)


@pytest.mark.parametrize("damage", [lambda _: b"", lambda _: b"garbage" * 99, lambda whole: whole[: len(whole) // 2]])
def test_bytes_that_are_no_flatbuffer_are_refused(tiny_flatbuffer: bytes, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ModelRefused, match="no flatbuffer"):
        Runner(damage(tiny_flatbuffer))


# --- run_locally


def test_results_come_in_the_order_of_the_tasks_however_long_each_takes() -> None:
    later = threading.Event()

    def work(task: int) -> int:
        if task == 0 and cores() > 1:
            assert later.wait(30)  # the first task ends after a later one
        if task == 1:
            later.set()
        return task * task

    assert list(run_locally(lambda: work, range(200))) == [task * task for task in range(200)]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_tasks_or_none_are_fine(count: int) -> None:
    assert list(run_locally(lambda: str, range(count))) == [str(task) for task in range(count)]


def test_neither_tasks_nor_results_pile_up() -> None:
    started, most = 0, 0

    def tasks() -> Iterator[int]:
        nonlocal started
        for task in range(300):
            started += 1
            yield task

    for done, _ in enumerate(run_locally(lambda: int, tasks(), window=3)):
        most = max(most, started - done)
    assert started == 300 and cores() <= most <= 3 * cores()


def test_a_workers_exception_is_raised_and_no_new_tasks_begin() -> None:
    begun = []

    def work(task: int) -> int:
        begun.append(task)
        if task == 5:
            raise RuntimeError("task five")
        return task

    results = run_locally(lambda: work, range(10_000), window=2)
    with pytest.raises(RuntimeError, match="task five"):
        list(results)
    assert len(begun) <= 5 + 2 * cores() + 1


def test_an_exception_while_making_a_worker_is_raised() -> None:
    def make() -> Callable[[int], int]:
        raise ModelRefused("no such model")

    with pytest.raises(ModelRefused, match="no such model"):
        list(run_locally(make, range(3)))


def test_at_most_one_worker_a_core_is_made_and_none_is_shared() -> None:
    made = []

    def make() -> Callable[[int], tuple[int, int]]:
        owner = threading.get_ident()
        made.append(owner)
        return lambda _: (owner, threading.get_ident())

    assert all(owner == user for owner, user in run_locally(make, range(500)))
    assert len(made) == len(set(made)) <= cores()


def test_closing_early_stops_the_work() -> None:
    begun = []

    def work(task: int) -> None:
        begun.append(task)
        time.sleep(0.1 if task else 0)

    results = run_locally(lambda: work, range(10_000), window=50)
    next(results)
    results.close()
    assert len(begun) < 50  # of those that were under way, the ones not yet begun are dropped
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("retrain")]
