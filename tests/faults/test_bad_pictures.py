"""Bad and odd pictures, one by one, against the decoder and a small training run.

Number of the list -> tests. What tests/test_images.py proves of the decoder already is not repeated here.

1   test_what_is_made_is_used_or_refused_as_the_tables_say (1-...), test_inputs
2   the same (2-...); test_no_part_of_a_picture_that_was_cut_off_gets_into_the_cache
3   the same (3-...)
4   the same (4-...); test_however_the_camera_was_held_the_features_and_the_label_are_the_same
5   the same (5-...); test_numbers_that_signal_are_zero_and_cause_no_warning
6   the same (6-...); test_the_record_says_of_how_many_pictures_the_first_frame_was_taken
7   the same (7-...); test_bombs_are_refused_in_little_memory_and_time; test_work_is_refused_by_the_size_of_the_picture...;
    test_what_hangs_on_behind_a_photo...; test_a_good_picture_that_memory_is_too_short_for... (marker faults)
8   the same (8-...); test_a_foreign_format_is_called_by_its_name; test_inputs has no child process, no network
9   test_inputs, test_mutants; test_no_file_of_the_collection_takes_long_or_much_memory; test_what_pillow_says_to_nobody...
10  the same (10-...); test_ordinary_photos_are_used_in_little_memory
"""

import shutil
import sqlite3
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from retrain import pipeline
from retrain.backbones import Backbone
from retrain.errors import BadImage
from retrain.images import decode
from retrain.label import load
from retrain.runner import Network, Runner, open_network
from retrain.views import decode_for, render
from tests.drawing import draw_classes
from tests.faults import decoding
from tests.faults.pictures import (
    BOMBS,
    CUT,
    FOREIGN,
    HELD,
    PHOTOS,
    PICTURES,
    SEVERAL,
    content,
    jpeg_of_scans,
    run_length_bmp,
)
from tests.test_images import BLUE, CORPUS_FILES, UNDO, encoded, flat, noisy, scene

ROOM = 300  # MB that a picture may take


def written(folder: Path, number: int, names: Iterable[str]) -> list[Path]:
    """Write the pictures of one number."""
    paths = [folder / f"{number}-{name}" for name in names]
    for path in paths:
        path.write_bytes(content(path.name))
    return paths


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_made_is_used_or_refused_as_the_tables_say(name: str) -> None:
    """Numbers 1 to 8 and 10: the number is the first part of the name."""
    made = PICTURES[name]
    if made.reasons:
        with pytest.raises(BadImage) as refused:
            decode_for(content(name), 224)
        assert refused.value.reason in made.reasons
        return
    picture = decode_for(content(name), 224)
    assert tuple(note for note in picture.notes if note != "turned") == made.notes
    if made.colour is not None:
        assert np.abs(np.asarray(picture.image).astype(int) - made.colour).max() <= 3


def apart(network: Network, one: bytes, other: bytes) -> float:
    """How far apart the network sees two pictures: cosine distance of its maps, as pooled features forget what was where."""
    runner, maps = open_network(network), []
    for data in (one, other):
        pixels = render(decode_for(data, runner.image_size), "squash", runner.image_size)
        _, spatial = runner.features_and_map(pixels[np.newaxis])
        assert spatial is not None
        maps.append(spatial.ravel() / np.linalg.norm(spatial))
    return float(1 - maps[0] @ maps[1])


@pytest.mark.parametrize("name", HELD)
def test_however_the_camera_was_held_the_features_and_the_label_are_the_same(
    name: str, tiny_flatbuffer: bytes, trained: Path
) -> None:
    """Number 4."""
    upright, turned = encoded(scene(), "PNG"), content(f"4-{name}")
    assert apart(Network(Runner.engine, tiny_flatbuffer), upright, turned) < 1e-2
    labeller = load(trained / "model")
    assert labeller.label_bytes(upright).scores[0].label == labeller.label_bytes(turned).scores[0].label


@pytest.mark.parametrize("orientation", [number for number, turn in UNDO.items() if turn is not None])
def test_a_scene_that_is_not_turned_upright_has_other_features(orientation: int, tiny_flatbuffer: bytes) -> None:
    """Number 4: the test above can fail."""
    upright, turned = (encoded(image, "PNG") for image in (scene(), scene().transpose(UNDO[orientation])))
    assert apart(Network(Runner.engine, tiny_flatbuffer), upright, turned) > 5e-2


def test_no_part_of_a_picture_that_was_cut_off_gets_into_the_cache(tmp_path: Path, tiny: Backbone) -> None:
    """Number 2."""
    data = draw_classes(tmp_path / "data", count=6)
    written(data / "red", 2, CUT)
    result = pipeline.train(tmp_path, backbone=tiny)
    assert {Path(item.path).name for item in result.skipped} == {f"2-{name}" for name in CUT} and result.used == 18
    with sqlite3.connect(tmp_path / "bottlenecks.sqlite") as cache:
        assert cache.execute("SELECT count(*) FROM feature").fetchone() == (18,)


def test_the_record_says_of_how_many_pictures_the_first_frame_was_taken(tmp_path: Path, tiny: Backbone) -> None:
    """Number 6."""
    data = draw_classes(tmp_path / "data", count=6)
    written(data / "red", 6, SEVERAL)
    result = pipeline.train(tmp_path, backbone=tiny)
    assert not result.skipped and result.record["data"]["read_as"] == {"first-frame": len(SEVERAL)}


def test_bombs_are_refused_in_little_memory_and_time(tmp_path: Path) -> None:
    """Number 7."""
    found = decoding.elsewhere(written(tmp_path, 7, BOMBS), room=ROOM)
    assert {name: came[0] in PICTURES[name].reasons for name, came in found.items()} == {f"7-{name}": True for name in BOMBS}


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (jpeg_of_scans(1600, 100), jpeg_of_scans(1600, 600)),
        (jpeg_of_scans(160, 1000), jpeg_of_scans(16000, 1)),
        (run_length_bmp(1000, 1000), run_length_bmp(4000, 2501)),
    ],
    ids=["scans", "size", "run length"],
)
def test_work_is_refused_by_the_size_of_the_picture_times_what_each_pixel_costs(allowed: bytes, refused: bytes) -> None:
    """Number 7."""
    decode(allowed, at_least=64)
    with pytest.raises(BadImage, match="too-large"):
        decode(refused, at_least=64)


def test_what_hangs_on_behind_a_photo_does_not_count_as_its_scans() -> None:
    """Number 7: a camera appends a video, and bytes of that may look like scans."""
    video = b"\0\0\0\x18ftypmp42" + b"\xff\xda\0\x08\1\1\0\0\x3f\0" * 400_000
    photo = encoded(noisy(64), "JPEG", progressive=True, comment=b"\xff\xda" * 1000)
    assert decode(photo + video).image.tobytes() == decode(photo).image.tobytes()


def test_numbers_that_signal_are_zero_and_cause_no_warning(tmp_path: Path) -> None:
    """Number 5: a NaN of the kind that makes numpy warn, found by a mutant."""
    pixels = np.full((16, 32), 0.5, np.float32)
    pixels.view(np.uint32)[0, 0] = 0x7FA00000
    (tmp_path / "signalling.tif").write_bytes(encoded(Image.fromarray(pixels), "TIFF"))
    assert decoding.elsewhere([tmp_path / "signalling.tif"])["signalling.tif"][0] == "TIFF"  # and nothing on stderr
    assert decode((tmp_path / "signalling.tif").read_bytes()).image.getpixel((0, 0)) == (0, 0, 0)


def test_what_pillow_says_to_nobody_is_not_said_on_stderr(tmp_path: Path) -> None:
    """Number 9: of this TIFF, found by a mutant, it logs that the samples are too many."""
    whole = encoded(noisy(), "TIFF")
    at = whole.index(struct.pack("<HHI", 277, 3, 1)) + 8  # samples per pixel
    (tmp_path / "samples.tif").write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "samples.tif", formats=["TIFF"])
    assert decoding.elsewhere([tmp_path / "samples.tif"])["samples.tif"][0] == "corrupt"  # and nothing on stderr


LARGE: dict[str, tuple[str, dict[str, object], int]] = {  # name -> (format, how it is written, MB that are too few for it)
    "PNG": ("PNG", {}, 32),
    "GIF": ("GIF", {}, 16),
    "BMP": ("BMP", {}, 32),
    "TIFF": ("TIFF", {}, 32),
    "JPEG, progressive": ("JPEG", {"progressive": True, "subsampling": 0}, 64),
    "WebP": ("WEBP", {"quality": 10, "method": 0}, 64),
    "WebP, lossless": ("WEBP", {"lossless": True, "quality": 0, "method": 0}, 64),
    "WebP, animated": ("WEBP", {"save_all": True, "append_images": [flat(BLUE, size=(4900, 4900))], "method": 0}, 64),
    "AVIF": ("AVIF", {"speed": 10}, 32),
}


@pytest.mark.faults
@pytest.mark.parametrize("name", LARGE)
def test_a_good_picture_that_memory_is_too_short_for_is_named_as_that(name: str, tmp_path: Path) -> None:
    """Number 7."""
    kind, options, room = LARGE[name]
    (tmp_path / "large").write_bytes(encoded(flat(size=(4900, 4900)), kind, **options))
    assert decoding.elsewhere([tmp_path / "large"], room=room) == {"large": ["too-large", "out of memory"]}
    assert decoding.elsewhere([tmp_path / "large"])["large"][0] == kind


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_a_damaged_picture_is_no_less_damaged_in_little_memory(kind: str, tmp_path: Path) -> None:
    """Number 7: it is small, so memory is not what it lacks."""
    whole = encoded(noisy(), kind)
    (tmp_path / "damaged").write_bytes(whole[:40] + bytes(400))
    assert decoding.elsewhere([tmp_path / "damaged"], room=32)["damaged"][0] == "corrupt"


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_format_is_called_by_its_name(name: str) -> None:
    """Number 8."""
    with pytest.raises(BadImage, match=f"^unsupported-format: {name}"):
        decode(content(f"8-{name}.png"))


def test_ordinary_photos_are_used_in_little_memory(tmp_path: Path) -> None:
    """Number 10."""
    found = decoding.elsewhere(written(tmp_path, 10, PHOTOS), room=ROOM)
    assert {name: came[0] for name, came in found.items()} == {f"10-{name}": "JPEG" for name in PHOTOS}


@pytest.mark.skipif(not CORPUS_FILES, reason="the collection of damaged pictures is not there")
def test_no_file_of_the_collection_takes_long_or_much_memory(tmp_path: Path) -> None:
    """Number 9: one process for all of them, so the memory of one is not kept for the next either."""
    for path in CORPUS_FILES:
        shutil.copyfile(path, tmp_path / path.name)
    found = decoding.elsewhere(sorted(tmp_path.iterdir()), room=ROOM)
    assert len(found) == len(CORPUS_FILES)
    assert not {name: came for name, came in found.items() if "out of memory" in came}
