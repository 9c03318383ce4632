"""The troublesome network makes the troubles it is told to, and no others."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.support.proxy import Proxy


class Server:
    """Answers each request with its own bytes, and remembers what came."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def _answer(self, link: socket.socket) -> None:
        with suppress(OSError), link:
            while request := link.recv(1000):
                self.heard.append(request)
                link.sendall(request)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def network(server: Server) -> Iterator[Proxy]:
    with Proxy("127.0.0.1", server.port) as network:
        yield network


def connected(network: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", network.port), timeout=0.3)


def asked(link: socket.socket, request: bytes = b"12345678") -> bytes:
    link.sendall(request)
    return link.recv(1000)


def test_it_passes_everything_on(server: Server, network: Proxy) -> None:
    with connected(network) as link:
        assert [asked(link), asked(link)] == [b"12345678"] * 2
    assert (server.heard, network.requests) == ([b"12345678"] * 2, 2)


def test_a_url_leads_to_it_and_keeps_user_and_path(network: Proxy) -> None:
    assert network.url("redis://me:a%40b@host:1/2?x=1") == f"redis://me:a%40b@127.0.0.1:{network.port}/2?x=1"


def test_a_lost_answer_leaves_the_request_with_the_server(server: Server, network: Proxy) -> None:
    with connected(network) as link:
        network.lose_answer(1)
        assert asked(link, b"first") == b"first"
        with pytest.raises(ConnectionResetError):
            asked(link, b"second")
    assert (server.heard, network.fired) == ([b"first", b"second"], 1)
    with connected(network) as link:
        assert asked(link, b"third") == b"third"


def test_a_hushed_answer_never_comes_and_nothing_comes_after_it(server: Server, network: Proxy) -> None:
    with connected(network) as link:
        network.hush_answer()
        with pytest.raises(TimeoutError):
            asked(link, b"first")
        network.heal(dark_too=False)
        with pytest.raises(TimeoutError):
            asked(link, b"second")
        assert server.heard == [b"first"]
        network.heal()
        with pytest.raises(ConnectionResetError):
            asked(link, b"third")


def test_a_torn_request_arrives_in_half(server: Server, network: Proxy) -> None:
    with connected(network) as link:
        network.tear_request()
        with pytest.raises(ConnectionResetError):
            asked(link)
    until = time.monotonic() + 2
    while not server.heard and time.monotonic() < until:
        time.sleep(0.01)
    assert server.heard in ([b"1234"], [])  # a reset may overtake what the server had not read


def test_a_torn_answer_comes_back_in_half(server: Server, network: Proxy) -> None:
    with connected(network) as link:
        network.tear_answer()
        assert asked(link) == b"1234"
        with pytest.raises(ConnectionResetError):
            link.recv(1000)
    assert server.heard == [b"12345678"]


def test_a_cut_resets_everybody(network: Proxy) -> None:
    with connected(network) as one, connected(network) as other:
        assert asked(one) == asked(other)
        assert network.connections == 2
        network.cut()
        for link in (one, other):
            with pytest.raises(ConnectionResetError):
                asked(link)
    with connected(network) as link:
        assert asked(link) == b"12345678"


def test_a_black_hole_accepts_and_swallows(server: Server, network: Proxy) -> None:
    with connected(network) as old:
        assert asked(old) == b"12345678"
        network.swallow()
        with connected(network) as new:
            for link in (old, new):
                with pytest.raises(TimeoutError):
                    asked(link, b"lost")
            network.heal()
            for link in (old, new):
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    asked(link, b"late")
    assert server.heard == [b"12345678"]


def test_who_is_refused_cannot_connect_until_it_heals(network: Proxy) -> None:
    network.refuse()
    with pytest.raises(ConnectionRefusedError):
        connected(network)
    network.heal()
    with connected(network) as link:
        assert asked(link) == b"12345678"


def test_a_delay_holds_back_both_directions(network: Proxy) -> None:
    with connected(network) as link:
        network.delay(0.05, 0.1)
        began = time.monotonic()
        assert asked(link) == b"12345678"
        assert 0.14 < time.monotonic() - began < 0.3


def test_what_is_disarmed_does_not_happen(network: Proxy) -> None:
    network.tear_request()
    assert network.disarm()
    assert not network.disarm()
    with connected(network) as link:
        assert asked(link) == b"12345678"
    assert network.fired == 0
