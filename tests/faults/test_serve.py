"""A server, and what is sent to it that no browser sends: it refuses soon, holds on to nothing, and serves the next one.

7   bombs                                  test_whatever_picture_is_sent_..., which sends those of number 1 to 10, too
9   the collection of damaged pictures     test_no_file_of_the_collection_does_it_any_harm
34  bodies over the limit, however they come, 10,000 parts, long boundaries and preambles, forms that are cut off
        test_a_body_that_is_too_large_or_no_good_is_refused_soon_and_nothing_stays_of_it
35  slow clients                           test_serve_slow.py
36  many at a time, SIGTERM                test_many_at_a_time_..., test_serve_ends.py
37  other hosts and origins                tests/test_serve_guard.py
39  paths, headers                         tests/test_serve_guard.py; test_what_is_no_http_is_refused_...
"""

import contextlib
import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawing import COLOURS, draw
from tests.faults.disturbed import contents
from tests.faults.pictures import PICTURES, content
from tests.faults.served import CHUNKED, HOST, Came, Server, at_once, chunk, first, is_closed, post, refused, serving, until
from tests.serving import form
from tests.test_images import CORPUS_FILES

pytestmark = pytest.mark.faults
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
MIB = 2**20
GROWTH, MOST = 100, 1000  # MB


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return draw(tmp_path_factory.mktemp("sent") / "red.png", COLOURS["red"], 77).read_bytes()


@pytest.fixture(scope="module")
def server(trained: Path, tmp_path_factory: pytest.TempPathFactory, picture: bytes) -> Iterator[Server]:
    """One for all tests here: each of them finds it as the one before has left it."""
    before = contents(trained / "model")
    with serving(trained / "model", tmp_path_factory.mktemp("served") / "room", "--max-body", 4) as running:
        # What large pictures and many large bodies take is taken once, and kept by the allocator.
        send_all(running)
        at_once(lambda _: running.raw(*BODIES["over the limit, in chunks"][0]), 100)
        yield running
        assert running.megabytes < MOST
        assert not running.said, "it wrote into its log"
        assert running.end() == 143
    assert contents(trained / "model") == before


@pytest.fixture(autouse=True)
def well(server: Server, picture: bytes) -> Iterator[None]:
    """After whatever was done it answers, holds nothing, and has not grown."""
    before, server.may_grow = server.megabytes, GROWTH
    yield
    until(lambda: server.count("retrain_body_bytes") == 0 and server.count("retrain_under_way") == 0)
    assert server.label(picture).status == 200
    assert server.megabytes < before + server.may_grow


def send_all(server: Server) -> dict[str, Came]:
    """Have each of the pictures that are made explained, which takes the most memory."""
    return {name: server.ask("POST", "/explain", content(name)) for name in PICTURES if len(content(name)) <= 4 * MIB}


# --- 34

LARGE = bytes(5 * MIB)
BOUNDARY = b"Content-Type: multipart/form-data; boundary=xYx"
PARTS, _ = form(*[("n", None, b"")] * 10_000)
FILES, _ = form(*[("n", "n.png", b"")] * 10_000)
BODIES: dict[str, tuple[list[bytes], tuple[int, ...]]] = {  # what is sent, and how it may be refused
    "over the limit, stated": ([post(LARGE, b"Content-Type: image/png")], (413,)),
    "over the limit, stated, and not sent": ([post(b"", length=5 * MIB)], (413,)),
    "beyond all limits, stated": ([post(b"", length=10**18)], (413,)),
    "over the limit, in chunks": ([CHUNKED, *[chunk(bytes(65536))] * 80, b"0\r\n\r\n"], (413,)),
    "over the limit, in one chunk": ([CHUNKED, chunk(LARGE)], (413,)),
    "endless, in chunks": ([CHUNKED, *[chunk(bytes(65536))] * 400], (413,)),
    "in chunks of a byte": ([CHUNKED, *[chunk(b"x") * 10_000] * 5, b"0\r\n\r\n"], (400,)),
    "a chunk of a wrong length": ([CHUNKED, b"5\r\nxxxxxxxxxx\r\n0\r\n\r\n"], (400,)),
    "a chunk of no length": ([CHUNKED, b"z\r\n"], (400,)),
    "a chunk of a negative length": ([CHUNKED, b"-5\r\nxxxxx\r\n"], (400,)),
    "a chunk with a long remark": ([CHUNKED, b"1;" + b"x" * MIB], (400,)),
    "an endless trailer": ([CHUNKED, b"0\r\n" + b"X: y\r\n" * 100_000], (400,)),
    "10,000 parts": ([post(PARTS, BOUNDARY)], (400,)),
    "10,000 files": ([post(FILES, BOUNDARY)], (400,)),
    "a boundary of 1 MB": ([post(b"", BOUNDARY + b"x" * MIB)], (400,)),
    "a preamble of 1 MB": ([post(b"x" * MIB + PARTS, BOUNDARY)], (400,)),
    "a preamble of line ends": ([post(b"\r\n" * MIB, BOUNDARY)], (400,)),
    "a boundary begun a million times": ([post(b"--xYx\r\n\r\n" + b"\r\n--xY" * 500_000, BOUNDARY)], (400,)),
    "a header of 1 MB in a part": ([post(b"--xYx\r\nX: " + b"y" * MIB, BOUNDARY)], (400,)),
    "a form that is cut off": ([post(PARTS[:40], BOUNDARY)], (400,)),
    "a form of another boundary": ([post(FILES, b"Content-Type: multipart/form-data; boundary=other")], (400,)),
    "a form without a boundary": ([post(FILES, b"Content-Type: multipart/form-data")], (400,)),
    "text": ([post(b"x", b"Content-Type: text/plain")], (415,)),
    "JSON": ([post(b"{}", b"Content-Type: application/json")], (415,)),
    "no type": ([post(b"x")], (422,)),
    "nothing": ([post(b"")], (422,)),
    "lists in lists": ([post(b"[" * 4 * MIB, path=b"/v1/models/retrain:predict")], (413,)),
    "values": ([post(b'{"instances":[[' + b"1," * 1_000_000 + b"1]]}", path=b"/v1/models/retrain:predict")], (400,)),
    "more values": ([post(b'{"instances":[[' + b"1," * 1_900_000 + b"1]]}", path=b"/v1/models/retrain:predict")], (413,)),
    "names": (
        [post(b"{" + b",".join(b'"%d":0' % n for n in range(300_000)) + b"}", path=b"/v1/models/retrain:predict")],
        (413,),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_too_large_or_no_good_is_refused_soon_and_nothing_stays_of_it(server: Server, name: str) -> None:
    """Number 34."""
    pieces, statuses = BODIES[name]
    began = time.monotonic()
    refused(server.raw(*pieces), *statuses)
    assert time.monotonic() - began < 10


def test_a_hundred_bodies_over_the_limit_at_a_time_do_not_add_up(server: Server) -> None:
    """Number 34."""
    server.may_grow = 256 + GROWTH  # as much as all bodies together may take, part of which the allocator keeps
    pieces, _ = BODIES["over the limit, in chunks"]
    for came in at_once(lambda _: server.raw(*pieces), 100):
        assert isinstance(came, Came) and came.status in (413, 503), came


def test_who_goes_away_in_the_middle_leaves_nothing_behind(server: Server, picture: bytes) -> None:
    """Number 34."""
    for request in (post(picture, length=2 * MIB), CHUNKED + chunk(picture), post(picture)[:60], post(picture), b"GET / HT"):
        for _ in range(10):
            with server.connect() as client:
                client.sendall(request)


# --- 7, 9


def test_whatever_picture_is_sent_it_is_labelled_or_refused_with_a_reason(server: Server) -> None:
    """Number 1 to 10."""
    for name, came in send_all(server).items():
        if PICTURES[name].reasons:
            assert refused(came, 413, 422) in PICTURES[name].reasons, name
        else:
            assert came.status == 200, (name, came)


@pytest.mark.skipif(not CORPUS_FILES, reason="the collection of damaged pictures is not there")
def test_no_file_of_the_collection_does_it_any_harm(server: Server) -> None:
    """Number 9."""
    found = {path.name: server.label(path.read_bytes()) for path in CORPUS_FILES}
    assert {came.status for came in found.values()} <= {200, 413, 422}, found
    for came in found.values():
        if came.status != 200:
            refused(came, 413, 422)


# --- 39


GARBAGE: dict[str, bytes] = {
    "zeros": bytes(1000),
    "a greeting of TLS": bytes.fromhex("16030100c8010000c40303") + bytes(range(200)),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/0.9": b"GET /\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "line ends": b"\r\n" * 50_000 + b"x\r\n\r\n",
    "a line without an end": b"G" * 300_000,
    "a long path": b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path beyond ASCII": b"GET /\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
    "a path with a zero": b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\n" + HOST + b": x\r\n\r\n",
    "a header with a zero": b"GET / HTTP/1.1\r\n" + HOST + b"X: \0\r\n\r\n",
    "a header with a space": b"GET / HTTP/1.1\r\n" + HOST + b"Content-Length : 5\r\n\r\n",
    "a million headers": b"GET / HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 1_000_000 + b"\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "no host, as one may": b"GET / HTTP/1.0\r\n\r\n",
    "two lengths": b"POST /label HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "a negative length": b"POST /label HTTP/1.1\r\n" + HOST + b"Content-Length: -1\r\n\r\n",
    "a length in words": b"POST /label HTTP/1.1\r\n" + HOST + b"Content-Length: five\r\n\r\n",
    "a length and chunks": CHUNKED.replace(HOST, HOST + b"Content-Length: 5\r\n") + b"0\r\n\r\n",
    "chunks and a length": CHUNKED.replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n") + b"0\r\n\r\n",
    "other than chunks": CHUNKED.replace(b"chunked", b"gzip, chunked") + b"0\r\n\r\n",
    "chunks, misspelt": CHUNKED.replace(b"chunked", b"xchunked") + b"0\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_http_is_refused_and_what_follows_is_not_listened_to(server: Server, name: str) -> None:
    """Number 39; and what a proxy may take for one request must not be two here."""
    smuggled = b"GET /about HTTP/1.1\r\n" + HOST + b"\r\n"
    with server.connect(20) as client:
        sent = GARBAGE[name] + smuggled
        try:
            client.sendall(sent)
        except OSError:
            assert len(sent) > 100_000  # it was closed before all of that had come
        came = first(client)
        if came.status or len(sent) < 100_000:
            refused(came, 400)
            assert came.headers["x-content-type-options"] == "nosniff"
        assert is_closed(client)


def test_a_header_of_100_kb_does_no_harm(server: Server) -> None:
    """Number 39: ranges are not given, so there is nothing to reckon."""
    began = time.monotonic()
    for name in (b"Range: bytes=", b"Accept: ", b"Cookie: "):
        assert server.raw(b"GET / HTTP/1.1\r\n" + HOST + name + b"0-1," * 25_000 + b"0-1\r\n\r\n").status in (200, 400)
    assert time.monotonic() - began < 10
    assert server.ask("GET", "/", Range="bytes=0-0").status == 200


def test_requests_that_are_sent_without_waiting_are_answered_in_their_order(server: Server, picture: bytes) -> None:
    with server.connect() as client:
        client.sendall(post(picture) + post(b"x") + b"GET /about HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        whole = b""
        while piece := client.recv(65536):
            whole += piece
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]+)", whole)] == [200, 422, 200]


# --- 36


def test_many_at_a_time_each_get_their_own_answer_or_are_told_to_come_again(
    server: Server, trained: Path, tmp_path: Path
) -> None:
    """Number 36."""
    sent = [draw(tmp_path / f"{n}.png", list(COLOURS.values())[n % 3], 600 + n, (300, 200)).read_bytes() for n in range(10)]
    expected = [server.label(data).body for data in sent]
    assert len(set(expected)) == 10
    began = time.monotonic()
    found = at_once(lambda number: server.label(sent[number % 10]), 100)
    assert time.monotonic() - began < 30
    for number, came in enumerate(found):
        assert isinstance(came, Came), came
        if came.status == 200:
            assert came.body == expected[number % 10]
        else:
            assert refused(came, 503) == "busy" and came.headers["retry-after"] == "1"
    assert sum(isinstance(came, Came) and came.status == 200 for came in found) >= 50


def test_with_a_short_queue_the_rest_is_turned_away_at_once(trained: Path, tmp_path: Path, picture: bytes) -> None:
    """Number 36: else the test above could pass without anybody having been turned away."""
    with serving(trained / "model", tmp_path / "room", "--queue", 0, "--workers", 1) as small:
        slow = json.dumps({"instances": [[[[1, 2, 3]]]] * 64}).encode()
        found = at_once(lambda _: small.ask("POST", "/v1/models/retrain:predict", slow), 40)
        statuses = [came.status for came in found if isinstance(came, Came)]
        assert len(statuses) == 40 and set(statuses) == {200, 503}
        assert small.label(picture).status == 200


@needs_strace
def test_nothing_is_written_whatever_is_sent(trained: Path, tmp_path: Path, picture: bytes) -> None:
    """Number 34: no system call that would make, change or delete a file, of any thread."""
    calls = "open,openat,creat,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,truncate,ftruncate"
    calls += ",link,linkat,symlink,symlinkat"
    trace = tmp_path / "trace"
    before = ("strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={calls}")
    with serving(trained / "model", tmp_path / "room", before=before) as watched:
        started = len(trace.read_text().splitlines())
        body, kind = form(("image", "../../x.png", picture))
        large, _ = form(("image", "/tmp/x.png", bytes(8 * MIB)))
        assert watched.label(body, kind).status == 200 and watched.label(large, kind).status == 422
        assert watched.ask("POST", "/explain", picture).status == 200
        for name in ("2-cut-at-50.tif", "7-scans.jpg", "10-20-megapixels.jpg"):
            watched.label(content(name))
        watched.ask("GET", "/..%2f..%2fetc/passwd")
        watched.raw(*BODIES["over the limit, in chunks"][0])
        assert watched.ask("GET", "/").status == 200
        lines = trace.read_text().splitlines()[started:]
        assert any(str(trained) in line for line in lines)  # the nearest pictures, which are read
        writes = [
            line for line in lines if not re.search(r"\bopen(at)?\(", line) or re.search("O_WRONLY|O_RDWR|O_CREAT", line)
        ]
        assert not [line for line in writes if "(" in line and "/dev/null" not in line], writes
        assert not [line for line in lines if "passwd" in line or "x.png" in line], lines


def test_a_body_in_chunks_of_a_byte_keeps_nobody_waiting_and_is_refused(server: Server, picture: bytes) -> None:
    """Each chunk is work; of a quarter of a megabyte, read at once, there would be 43,000."""
    with server.connect() as client, server.connect() as other:
        for one in (client, other):
            one.sendall(CHUNKED)
            with contextlib.suppress(OSError):  # it hangs up
                one.sendall(chunk(b"x") * 40_000)
        assert server.label(picture).status == 200
        answers = [first(one) for one in (client, other)]
        assert all(came.status in (0, 400) for came in answers) and all(map(is_closed, (client, other)))
