"""The client of `serve_load.py`, as a process of its own: so many connections that ask one request after the other.

    python benchmarks/load_client.py PORT CONNECTIONS SECONDS REQUESTS FILE...

Sends the files in turn to POST /label over connections that stay open, until SECONDS have passed or REQUESTS were sent, or
the server has no more connections to give. Prints JSON: requests by status, seconds of each answered one, how many were
sent whole on an open connection and not answered (`lost`), and seconds in all.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import cycle
from pathlib import Path

_PATIENCE = 60.0  # seconds for one answer


class Load:
    """What the connections share."""

    def __init__(self, port: int, seconds: float, most: int, pictures: list[bytes]) -> None:
        head = "POST /label HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: image/jpeg\r\ncontent-length: {}\r\n\r\n"
        self.requests = cycle([head.format(port, len(data)).encode() + data for data in pictures])
        self.port, self.left = port, most
        self.ends = time.perf_counter() + seconds
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        self.lost = self.without_retry_after = 0

    def goes_on(self) -> bool:
        """Take one request of those that are left."""
        self.left -= 1
        return self.left >= 0 and time.perf_counter() < self.ends


async def connection(load: Load) -> None:
    """Ask until there is no more to ask, or nobody to ask: over one connection, and another where that was ended."""
    while load.goes_on():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
        except OSError:  # the server has ended: nothing was sent
            return
        try:
            while await ask(load, reader, writer) and load.goes_on():
                pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError):
            load.lost += 1
        finally:
            writer.close()


async def ask(load: Load, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Send one request and read its answer; return whether the connection may be used again."""
    began = time.perf_counter()
    writer.write(next(load.requests))
    async with asyncio.timeout(_PATIENCE):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        _, _, after = head.partition(b"content-length: ")
        await reader.readexactly(int(after.split(b"\r\n", 1)[0]))
    status = int(head.split(b" ", 2)[1])
    load.statuses[status] += 1
    load.seconds.append(time.perf_counter() - began)
    load.without_retry_after += status == 503 and b"retry-after: " not in head
    return b"connection: close" not in head


async def main() -> None:
    """Run."""
    port, connections, seconds, most, *files = sys.argv[1:]
    load = Load(int(port), float(seconds), int(most), [Path(file).read_bytes() for file in files])
    began = time.perf_counter()
    await asyncio.gather(*(connection(load) for _ in range(int(connections))))
    print(
        json.dumps(
            {
                "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
                "lost": load.lost,
                "busy without Retry-After": load.without_retry_after,
                "in all": time.perf_counter() - began,
                "seconds": load.seconds,
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main())
