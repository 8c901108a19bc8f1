"""Fetching from real servers on loopback: what is allowed, what is refused, what is cut short."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from intake.fetch import Fetcher, fetch
from labelloop.errors import (
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    TooLargeError,
    UnreachableError,
    UnsafeLinkError,
)
from labelloop.settings import IntakeSettings

Handler = Callable[[BaseHTTPRequestHandler], None]


class Site:
    """A web server whose paths are functions; counts connections and requests."""

    def __init__(self) -> None:
        self.pages: dict[str, Handler] = {}
        self.requests: list[str] = []
        self.connections = 0
        site = self

        class Answer(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                site.connections += 1
                super().setup()

            def do_GET(self) -> None:
                site.requests.append(self.path)
                site.pages[self.path](self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.server.daemon_threads = True
        self.server.block_on_close = False
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.host = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.host}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


def body(data: bytes, content_type: str = "text/plain", **headers: str) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", content_type)
        request.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        request.wfile.write(data)

    return answer


def redirect(target: str) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", target)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def status(number: int) -> Handler:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(number)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def allowing(*hosts: str, **changes: object) -> IntakeSettings:
    return IntakeSettings(allowed_hosts=hosts, **changes)  # type: ignore[arg-type]


# ---------------------------------------------------------------- http


def test_an_allowed_host_is_fetched_with_its_media_type(site: Site) -> None:
    site.pages["/a?b=1"] = body(b"hello", "text/plain; charset=utf-8")
    assert fetch(f"{site.url}/a?b=1", allowing(site.host)) == (b"hello", "text/plain; charset=utf-8")


def test_loopback_is_refused_before_any_connection(site: Site) -> None:
    with pytest.raises(UnsafeLinkError, match=r"is loopback.*intake\.allowed_hosts"):
        fetch(f"{site.url}/a", IntakeSettings())
    assert site.connections == 0


def test_an_allowed_port_does_not_open_another_port_of_the_host(site: Site) -> None:
    with pytest.raises(UnsafeLinkError):
        fetch(f"{site.url}/a", allowing("127.0.0.1:1"))
    assert site.connections == 0


@pytest.mark.parametrize(
    "link",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://172.16.0.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:169.254.169.254]/",
        "http://[::7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://[fe80::1]/",
        "http://[fc00::1]/",
        "http://[ff02::1]/",
        "https://127.0.0.1/",
        "http://user:word@example.com/",
        "ftp://example.com/a",
        "gopher://example.com/",
        "javascript:alert(1)",
        "/etc/passwd",
        "",
    ],
)
def test_a_link_to_anything_but_a_public_address_is_refused(link: str) -> None:
    with pytest.raises(UnsafeLinkError):
        fetch(link, IntakeSettings())


def test_a_redirect_is_followed_where_each_hop_is_allowed(site: Site) -> None:
    site.pages["/old"] = redirect("/new")
    site.pages["/new"] = body(b"moved")
    assert fetch(f"{site.url}/old", allowing(site.host)).data == b"moved"


def test_a_redirect_to_loopback_on_another_port_is_refused(site: Site) -> None:
    inner = Site()
    try:
        inner.pages["/secret"] = body(b"secret")
        site.pages["/go"] = redirect(f"{inner.url}/secret")
        with pytest.raises(UnsafeLinkError, match="loopback"):
            fetch(f"{site.url}/go", allowing(site.host))
        assert inner.connections == 0
    finally:
        inner.close()


@pytest.mark.parametrize("target", ["file:///etc/passwd", "data:,x", "http://169.254.169.254/", "ftp://example.com/"])
def test_a_redirect_out_of_the_web_or_into_the_metadata_service_is_refused(site: Site, target: str) -> None:
    site.pages["/go"] = redirect(target)
    with pytest.raises(UnsafeLinkError):
        fetch(f"{site.url}/go", allowing(site.host, allowed_folders=("/etc",)))


def test_an_endless_redirect_ends(site: Site) -> None:
    site.pages["/loop"] = redirect("/loop")
    with pytest.raises(InvalidInputError, match="more than 3 times"):
        fetch(f"{site.url}/loop", allowing(site.host))
    assert len(site.requests) == 4


def test_a_body_over_the_limit_is_refused_by_its_header(site: Site) -> None:
    site.pages["/big"] = body(b"x" * 5000)
    with pytest.raises(TooLargeError, match="larger than 2048 bytes"):
        fetch(f"{site.url}/big", allowing(site.host, max_item_bytes=2048))


def test_a_body_without_a_length_is_cut_at_the_limit(site: Site) -> None:
    def endless(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Transfer-Encoding", "chunked")
        request.end_headers()
        try:
            while True:
                request.wfile.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
        except OSError:
            request.close_connection = True

    site.pages["/endless"] = endless
    with pytest.raises(TooLargeError, match="larger than"):
        fetch(f"{site.url}/endless", allowing(site.host, max_item_bytes=1_000_000))


def test_a_gzip_bomb_is_cut_at_the_limit(site: Site) -> None:
    site.pages["/bomb"] = body(gzip.compress(b"\0" * 10_000_000), Content_Encoding="gzip")
    with pytest.raises(TooLargeError):
        fetch(f"{site.url}/bomb", allowing(site.host, max_item_bytes=1_000_000))


def test_unasked_gzip_is_undone(site: Site) -> None:
    site.pages["/z"] = body(gzip.compress(b"plain"), Content_Encoding="gzip")
    assert fetch(f"{site.url}/z", allowing(site.host)).data == b"plain"


@pytest.mark.parametrize("where", ["header", "body"])
def test_a_peer_that_drips_is_cut_at_the_time_limit(site: Site, where: str) -> None:
    done = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        try:
            if where == "body":
                request.send_response(200)
                request.end_headers()
            else:
                request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not done.wait(0.02):
                request.wfile.write(b"x")
                request.wfile.flush()
        except OSError:
            pass

    site.pages["/drip"] = drip
    try:
        with pytest.raises(TooLargeError, match=r"took longer than 0\.3 s"):
            fetch(f"{site.url}/drip", allowing(site.host, fetch_timeout_s=0.3))
    finally:
        done.set()


def test_a_silent_tls_peer_is_cut_at_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(TooLargeError, match="took longer"):
            fetch(f"https://{host}/", allowing(host, fetch_timeout_s=0.3))


def test_a_body_that_breaks_off_may_work_later(site: Site) -> None:
    def broken(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"half")
        request.close_connection = True

    site.pages["/broken"] = broken
    with pytest.raises(UnreachableError):
        fetch(f"{site.url}/broken", allowing(site.host))


@pytest.mark.parametrize(
    ("number", "kind"),
    [(404, NotFoundError), (410, NotFoundError), (403, InvalidInputError), (503, UnreachableError), (204, InvalidInputError)],
)
def test_a_status_becomes_its_error(site: Site, number: int, kind: type[LabelloopError]) -> None:
    site.pages["/s"] = status(number)
    with pytest.raises(kind, match=str(number)):
        fetch(f"{site.url}/s", allowing(site.host))


def test_nobody_listening_may_work_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(UnreachableError):
        fetch(f"http://{host}/", allowing(host))


def test_a_name_that_does_not_resolve_may_work_later() -> None:
    with pytest.raises(UnreachableError, match="does not resolve"):
        fetch("http://nowhere.invalid/", IntakeSettings())


def test_connections_are_kept_and_a_stale_one_is_replaced(site: Site) -> None:
    site.pages["/a"] = body(b"a")

    def last(request: BaseHTTPRequestHandler) -> None:
        body(b"b")(request)
        request.close_connection = True

    site.pages["/b"] = last
    with closing(Fetcher(allowing(site.host))) as fetcher:
        for _ in range(5):
            assert fetcher.fetch(f"{site.url}/a").data == b"a"
        assert site.connections == 1
        fetcher.fetch(f"{site.url}/b")
        assert fetcher.fetch(f"{site.url}/a").data == b"a"
        assert site.connections == 2


def test_the_name_judged_is_the_address_connected_to(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that answers public first and loopback next gets no second question."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    asked: list[str] = []
    real = socket.getaddrinfo

    def rebinding(host: str, *rest: object, **more: object) -> object:
        if host != "rebind.example":
            return real(host, *rest, **more)  # type: ignore[arg-type]
        asked.append(host)
        return real(next(answers), *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    with pytest.raises((UnreachableError, TooLargeError)):
        fetch(f"http://rebind.example:{site.server.server_port}/a", IntakeSettings(fetch_timeout_s=0.3))
    assert len(asked) == 1
    assert site.connections == 0
