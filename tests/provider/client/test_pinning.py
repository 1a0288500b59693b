"""A token never reaches a wrong key."""

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from provider.client import (
    GatewayClient,
    GatewayError,
    GatewayUnreachable,
    WrongGatewayKey,
    make_token,
    pinned_context,
    spki_hash,
)
from provider.gateway.certificate import Certificate, load_or_make

SEED = b"s" * 32


class Listener:
    """A TLS server that keeps what it is sent."""

    def __init__(self, certificate: Certificate) -> None:
        self.received = b""
        self._context = certificate.context()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(0.05)
        self.port = int(self._socket.getsockname()[1])
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            try:
                plain, _ = self._socket.accept()
            except TimeoutError:
                continue
            plain.settimeout(10)
            with plain:
                try:
                    with self._context.wrap_socket(plain, server_side=True) as secured:
                        self.received += secured.recv(65536)
                except (OSError, ssl.SSLError):
                    continue

    def close(self) -> None:
        """End it."""
        self._stopping.set()
        self._thread.join()
        self._socket.close()


@contextmanager
def listening(certificate: Certificate) -> Iterator[Listener]:
    """A listener for a while."""
    listener = Listener(certificate)
    try:
        yield listener
    finally:
        listener.close()


def test_a_wrong_key_gets_no_token(tmp_path: Path) -> None:
    """Whoever answers with another key sees a handshake and not one byte more."""
    right, wrong = load_or_make(tmp_path / "right.pem"), load_or_make(tmp_path / "wrong.pem")
    asked = []
    with listening(wrong) as listener:
        url = f"https://127.0.0.1:{listener.port}"
        with GatewayClient(url, right.key_hash, lambda lease, scope: asked.append(scope) or "secret") as client:
            for call in (lambda: client.status("l"), lambda: list(client.logs("l")), lambda: client.shell("l", "web", ["sh"])):
                with pytest.raises(WrongGatewayKey) as refused:
                    call()
        assert refused.value.exit_code == 4
    assert listener.received == b""


def test_a_key_that_changes_gets_no_token(tmp_path: Path) -> None:
    """A connection made after the check is held to the same certificate: an impostor that comes later is refused."""
    right, wrong = load_or_make(tmp_path / "right.pem"), load_or_make(tmp_path / "wrong.pem")
    with listening(wrong) as impostor:
        with GatewayClient(f"https://127.0.0.1:{impostor.port}", wrong.key_hash, lambda *_: "secret", timeout_s=30) as client:
            client._key = right.key_hash
            client._context = None
            with pytest.raises(WrongGatewayKey):
                client.status("l")
        context = pinned_context("127.0.0.1", impostor.port, wrong.key_hash, 30)
    with (
        listening(right) as other,
        GatewayClient(f"https://127.0.0.1:{other.port}", wrong.key_hash, lambda *_: "secret", timeout_s=30) as client,
    ):
        client._context = context
        with pytest.raises(GatewayUnreachable):
            client.status("l")
    assert b"secret" not in impostor.received + other.received


def test_nobody_there_is_said(tmp_path: Path) -> None:
    """A gateway that is not there is unreachable, exit code 7."""
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with (
        GatewayClient(f"https://127.0.0.1:{port}", "0" * 64, lambda *_: "t") as client,
        pytest.raises(GatewayUnreachable) as lost,
    ):
        client.status("l")
    assert lost.value.exit_code == 7


def test_only_https() -> None:
    """An endpoint without TLS is refused before anything is sent."""
    for endpoint in ("http://127.0.0.1:1", "127.0.0.1:1", "https://"):
        with pytest.raises(GatewayError):
            GatewayClient(endpoint, "0" * 64, lambda *_: "t")


def test_a_token_lives_five_minutes_at_most() -> None:
    """A longer life is a bug of the caller."""
    now = int(time.time())
    assert make_token(SEED, "o", "l", "p", "logs", now, 300).count(".") == 2
    with pytest.raises(AssertionError):
        make_token(SEED, "o", "l", "p", "logs", now, 301)


def test_hash_is_of_the_key(tmp_path: Path) -> None:
    """What stands on the ledger is the hash of the public key, as any tool computes it."""
    from cryptography import x509

    certificate = load_or_make(tmp_path / "a.pem")
    assert spki_hash(x509.load_pem_x509_certificate(certificate.path.read_bytes())) == certificate.key_hash
    assert len(certificate.key_hash) == 64
