"""Many requests at a time, a bounded queue, and a new model in the place of the old one."""

import asyncio
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from retrain import artifact
from retrain.artifact import MANIFEST
from retrain.errors import ModelRefused
from retrain.exports import zipped
from retrain.label import Labeller, load
from retrain.serve import engine as engines
from retrain.serve.engine import Busy, Engine, Gone, Serving, Source
from tests.drawing import COLOURS, draw
from tests.serving import HOST, Service, typed
from tests.test_artifact import manifest_of, signed

SECONDS = 30  # after which a test that waits for something has failed


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "model", tmp_path / "model"))


def put(model: Path, labels: list[str]) -> None:
    """Save a model with other names for its classes, as training does: the manifest last."""
    from dataclasses import replace

    loaded = artifact.load(model)
    artifact.save(model, replace(loaded.artifact, labels=tuple(labels)), loaded.reference(), (), {})


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():
            await asyncio.sleep(0.005)


async def stays() -> None:
    """A client that waits for its answer."""
    await asyncio.Event().wait()


class Held:
    """A task that a test ends."""

    def __init__(self) -> None:
        self.go, self.begun = threading.Event(), threading.Semaphore(0)

    def __call__(self, _labeller: Labeller, serving: Serving) -> int:
        self.begun.release()
        assert self.go.wait(SECONDS)
        return serving.version


# --- the queue


def test_what_cannot_be_begun_soon_is_turned_away_and_later_taken_again(model: Path) -> None:
    engine, held = Engine(Source(model, 0.01, "auto", True), 2, 3), Held()

    async def come() -> None:
        waiting = [asyncio.create_task(engine.run(held, stays)) for _ in range(5)]
        await until(lambda: engine.under_way == 5)
        for _ in range(3):
            with pytest.raises(Busy):
                await engine.run(held, stays)
        assert engine.under_way == 5
        held.go.set()
        done = await asyncio.gather(*waiting)
        assert engine.under_way == 0 and [found for found, _ in done] == [1] * 5
        assert all(timed.waited >= 0 and timed.worked >= 0 for _, timed in done)
        assert (await engine.run(held, stays))[0] == 1

    asyncio.run(come())
    engine.close()


def test_a_client_that_is_turned_away_is_told_when_to_come_again(model: Path, trained: Path) -> None:
    service, held = Service(model, cores=1, waiting=0), Held()
    data = next((trained / "data" / "red").iterdir()).read_bytes()

    async def come() -> None:
        holding = asyncio.create_task(service.engine.run(held, stays))
        await until(lambda: service.engine.under_way)
        for path in ("/label", "/explain", "/v1/models/retrain:predict"):
            answer = await service.asked("POST", path, data, typed("image/png"))
            answer.refused(503, "busy")
            assert answer.header("retry-after") == "1"
        held.go.set()
        await holding

    asyncio.run(come())
    counts = service.ask("GET", "/metrics").body.decode()
    assert "retrain_under_way 0.0" in counts and "retrain_body_bytes 0.0" in counts
    assert service.label(data).status == 200


def test_who_waits_for_long_is_turned_away_and_what_has_begun_is_not(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrain.serve.engine._BEGUN_WITHIN", 0.2)
    engine, held, late = Engine(Source(model, 0.01, "auto", True), 1, 5), Held(), Held()

    async def come() -> None:
        begun = asyncio.create_task(engine.run(held, stays))
        await until(lambda: held.begun.acquire(blocking=False))
        with pytest.raises(Busy):
            await engine.run(late, stays)
        assert engine.under_way == 1 and not begun.done()
        held.go.set()
        assert (await begun)[0] == 1 and not late.begun.acquire(blocking=False)

    asyncio.run(come())
    engine.close()


def test_what_nobody_waits_for_is_not_begun_and_what_is_begun_takes_its_core_to_the_end(model: Path) -> None:
    engine, held, dropped = Engine(Source(model, 0.01, "auto", True), 1, 5), Held(), Held()

    async def come() -> None:
        leaves = asyncio.Event()
        both = [asyncio.create_task(engine.run(task, leaves.wait)) for task in (held, dropped)]
        await until(lambda: held.begun.acquire(blocking=False))
        leaves.set()
        for one in both:
            with pytest.raises(Gone):
                await one
        assert engine.under_way == 1
        held.go.set()
        await until(lambda: engine.under_way == 0)
        assert not dropped.begun.acquire(blocking=False) and engine.serving.labellers.qsize() == 1

    asyncio.run(come())
    engine.close()


def test_a_task_that_fails_gives_its_place_back(model: Path) -> None:
    engine = Engine(Source(model, 0.01, "auto", True), 1, 0)

    def fail(_labeller: Labeller, _serving: Serving) -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            asyncio.run(engine.run(fail, stays))
    assert engine.under_way == 0 and engine.serving.labellers.qsize() == 1
    engine.close()


def test_memory_that_is_too_short_for_a_picture_is_told_as_that(
    model: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def label_bytes(_self: Labeller, _data: bytes, _neighbours: int = 0) -> None:
        raise MemoryError

    service = Service(model, cores=1)
    data = next((trained / "data" / "red").iterdir()).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Labeller, "label_bytes", label_bytes)
        service.label(data).refused(413, "too-large")
    assert service.label(data).status == 200


def test_each_of_many_at_a_time_gets_the_answer_to_its_own_picture(model: Path, tmp_path: Path) -> None:
    service, labeller = Service(model, cores=3), load(model)
    sent = [draw(tmp_path / f"{n}.png", list(COLOURS.values())[n % 3], 500 + n).read_bytes() for n in range(30)]
    expected = [[score._asdict() for score in labeller.label_bytes(data).scores] for data in sent]

    async def come() -> None:
        asked = [service.asked("POST", ("/label", "/explain")[n % 2], sent[n], typed("image/png")) for n in range(30)]
        for number, answer in enumerate(await asyncio.gather(*asked)):
            found = answer.json()
            assert (found["labels"] if number % 2 else found) == expected[number]

    asyncio.run(come())
    assert len({row[0]["score"] for row in expected}) == 30  # else a mix-up would go unnoticed


# --- a new model


class Watched:
    """A service whose folder is watched while a test changes it."""

    def __init__(self, model: Path) -> None:
        self.service = Service(model, cores=2)
        self.log: list[str] = []

    async def __aenter__(self) -> "Watched":
        self._watching = asyncio.create_task(self.service.engine.watch(self.log.append, every=0.005))
        return self

    async def __aexit__(self, *_error: object) -> None:
        assert not self._watching.done()
        self._watching.cancel()

    @property
    def version(self) -> int:
        return self.service.engine.serving.version

    async def labels(self) -> list[str]:
        found: list[str] = (await self.service.asked("GET", "/about", headers=[HOST])).json()["labels"]
        return found


def test_a_new_model_takes_the_place_of_the_old_one_and_no_request_is_lost(model: Path, trained: Path) -> None:
    data, held = next((trained / "data" / "red").iterdir()).read_bytes(), Held()

    async def come() -> None:
        async with Watched(model) as watched:
            service = watched.service
            begun_before = asyncio.create_task(service.engine.run(held, stays))
            await until(lambda: held.begun.acquire(blocking=False))
            answers = []
            put(model, ["sky", "grass", "fire"])
            while watched.version == 1:
                answers.append(await service.asked("POST", "/label", data, typed("image/png")))
            held.go.set()
            assert (await begun_before)[0] == 1  # it ends with the model with which it began
            answers.append(await service.asked("POST", "/label", data, typed("image/png")))
            assert {answer.status for answer in answers} == {200}
            found = [answer.json()[0]["label"] for answer in answers]
            assert found == ["red"] * found.count("red") + ["fire"] * found.count("fire") and len(set(found)) == 2
            assert await watched.labels() == ["sky", "grass", "fire"]
            status = (await service.asked("GET", "/v1/models/retrain")).json()["model_version_status"][0]
            assert status["version"] == "2"
            assert (await service.asked("GET", "/v1/models/retrain/versions/1")).status == 404
            (line,) = watched.log
            assert "version 2" in line and "3 labels" in line

    asyncio.run(come())


def test_a_damaged_model_is_told_of_and_the_one_before_is_served_until_it_is_mended(model: Path) -> None:
    whole = (model / MANIFEST).read_bytes()

    def damage() -> None:
        put(model, ["sky", "grass", "fire"])
        (head,) = model.glob("head-*")
        head.write_bytes(head.read_bytes()[:-1])

    damages: list[Callable[[], object]] = [
        lambda: (model / MANIFEST).write_bytes(b"{}"),
        lambda: (model / MANIFEST).write_bytes(whole[:-1] + b" "),
        lambda: (model / MANIFEST).write_bytes(signed({**manifest_of(model), "look": {"way": "several", "views": []}})),
        damage,
    ]

    async def come() -> None:
        async with Watched(model) as watched:
            for number, spoil in enumerate(damages, start=1):
                spoil()
                await until(lambda n=number: len(watched.log) == 2 * n - 1)  # type: ignore[misc]
                assert "cannot be used, the one before is served on" in watched.log[-1]
                assert watched.service.engine.refused and watched.version == number
                assert len(await watched.labels()) == 3
                assert "retrain_model_refused 1.0" in (await watched.service.asked("GET", "/metrics")).body.decode()
                shutil.rmtree(model)
                model.mkdir()
                shutil.copytree(copy, model, dirs_exist_ok=True)
                os.utime(model / MANIFEST, ns=(number, number))
                await until(lambda n=number: len(watched.log) == 2 * n)  # type: ignore[misc]
                assert not watched.service.engine.refused and watched.version == number + 1

    copy = Path(shutil.copytree(model, model.parent / "copy"))
    asyncio.run(come())


def test_a_folder_that_is_gone_for_a_while_is_told_once_and_changes_nothing(model: Path) -> None:
    async def come() -> None:
        async with Watched(model) as watched:
            looked = counted(watched)
            model.rename(model.parent / "aside")
            await until(lambda: len(looked) > 3)
            assert await watched.labels() == list(COLOURS)
            assert len(watched.log) == 1 and "is not there any more" in watched.log[0]
            (model.parent / "aside").rename(model)
            looked.clear()
            await until(lambda: len(looked) > 3)
            assert watched.version == 1 and len(watched.log) == 1  # it is the same model
            put(model, ["sky", "grass", "fire"])
            await until(lambda: watched.version == 2)

    def counted(watched: Watched) -> list[Path]:
        looked: list[Path] = []
        stamp = engines._stamp

        def look(folder: Path) -> tuple[int, int, int] | None:
            looked.append(folder)
            return stamp(folder)

        patch.setattr(engines, "_stamp", look)
        return looked

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(come())


@pytest.mark.parametrize("error", [RuntimeError("boom"), MemoryError(), KeyError("x"), OSError("gone")])
def test_whatever_goes_wrong_with_a_model_the_next_one_is_served(
    model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(_folder: Path) -> None:
        raise error

    async def come() -> None:
        async with Watched(model) as watched:
            with monkeypatch.context() as patch:
                patch.setattr(artifact, "load", fail)
                os.utime(model / MANIFEST, ns=(1, 1))
                await until(lambda: watched.log)
            assert "served on: " in watched.log[0] and not watched.log[0].endswith(": ")
            put(model, ["sky", "grass", "fire"])
            await until(lambda: watched.version == 2)

    asyncio.run(come())


def test_a_model_that_cannot_look_as_it_is_told_to_does_not_end_the_watch(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With --tta on, and a new model that was trained without --tta."""

    async def come() -> None:
        async with Watched(model) as watched:
            engine = watched.service.engine
            engine._source = engine._source._replace(tta="on")
            os.utime(model / MANIFEST, ns=(1, 1))
            await until(lambda: watched.log)
            assert "--tta" in watched.log[0] and watched.version == 1

    asyncio.run(come())


def test_a_model_that_could_not_be_loaded_is_tried_again_though_its_manifest_stays(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []
    monkeypatch.setattr(engines, "_TRIED_EVERY", 0.01)
    monkeypatch.setattr(engines.artifact, "load", lambda folder, load=artifact.load: tried.append(folder) or load(folder))

    async def come() -> None:
        async with Watched(model) as watched:
            (head,) = model.glob("head-*")
            head.rename(model / "late")
            os.utime(model / MANIFEST, ns=(1, 1))
            await until(lambda: len(tried) > 3)
            assert len(watched.log) == 1  # it is told once
            (model / "late").rename(head)
            await until(lambda: watched.version == 2)
            assert not watched.service.engine.refused

    asyncio.run(come())


def test_without_a_model_there_is_no_engine(tmp_path: Path, model: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ModelRefused):
            Engine(Source(folder, 0.01, "auto", True), 1, 0)
    (model / MANIFEST).write_text(json.dumps({}))
    with pytest.raises(ModelRefused):
        Engine(Source(model, 0.01, "auto", True), 1, 0)


def test_a_model_in_a_zip_is_served_and_changed_like_a_folder(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    zipped.write(artifact.load(model).whole(), path)

    async def come() -> None:
        async with Watched(path) as watched:
            assert await watched.labels() == list(COLOURS)
            put(model, ["sky", "grass", "fire"])
            zipped.write(artifact.load(model).whole(), tmp_path / "new.zip")
            (tmp_path / "new.zip").replace(path)
            await until(lambda: watched.version == 2)
            assert await watched.labels() == ["sky", "grass", "fire"]

    asyncio.run(come())
