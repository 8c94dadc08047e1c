"""A stand-in for tfhub.dev on the loopback interface: a proxy that answers in its name, and leads nowhere else.

What a process asks for is unchanged, TLS included: its environment names the proxy, and whose certificates to trust.
"""

import contextlib
import ssl
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from socket import create_connection

import trustme

from tests.hub_modules import Site, serving

HOST = "tfhub.dev"


@dataclass
class StandIn:
    """`environment`: has a process ask here, for whatever host. `asked`: the addresses that it wanted, in order."""

    site: Site
    environment: dict[str, str]
    asked: list[str] = field(default_factory=list)

    def offer(self, handle: str, data: bytes) -> list[str]:
        """Offer an archive; return the addresses that a client asks for on its way to it."""
        path = urllib.parse.urlsplit(handle).path
        self.site.add(path[1:], data)
        return [f"{handle}?tf-hub-format=compressed", f"https://{HOST}/storage{path}.tar.gz"]


@contextlib.contextmanager
def standing_in(folder: Path) -> Iterator[StandIn]:
    """Stand in for tfhub.dev while a block runs. `folder`: for the certificate of who signs in these tests."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    with serving() as site, ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as proxy:
        stand_in = StandIn(site, _leading_to(proxy.server_port, folder / "authority.pem"))
        proxy.RequestHandlerClass = _answering(stand_in, context)
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            proxy.shutdown()
            thread.join()


def _leading_to(port: int, authority: Path) -> dict[str, str]:
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), f"http://127.0.0.1:{port}") | {"no_proxy": ""}
    return proxies | {name.upper(): value for name, value in proxies.items()} | {"SSL_CERT_FILE": str(authority)}


def _answering(stand_in: StandIn, context: ssl.SSLContext) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def do_GET(self) -> None:
            self._refuse(self.path)  # of a proxy, whole addresses are asked

        def do_CONNECT(self) -> None:
            if self.path != f"{HOST}:443":
                self._refuse(f"https://{self.path}")
                return
            self.send_response(200)
            self.end_headers()
            # A client may trust others, or have gone.
            with contextlib.suppress(OSError), context.wrap_socket(self.connection, server_side=True) as client:
                _pass_on(client, stand_in)

        def _refuse(self, address: str) -> None:
            stand_in.asked.append(address)
            self.send_error(403, "the network ends here")

    return Handler


def _pass_on(client: ssl.SSLSocket, stand_in: StandIn) -> None:
    """Hand one request to the site, and its answer back; each connection has only one."""
    with client.makefile("rb") as words:
        head = list(takewhile(b"\r\n".__ne__, words))
    if not head:
        return
    stand_in.asked.append(f"https://{HOST}{head[0].split()[1].decode()}")
    with create_connection(("127.0.0.1", stand_in.site.port)) as site:
        site.sendall(b"".join(head) + b"\r\n")
        while block := site.recv(1 << 16):
            client.sendall(block)
