"""The journal: durable, private, one writer."""

import os
import resource
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from marketplace.protocol.records import LeaseState
from provider.leases.journal import HomeBusy, HomeLock, Journal, JournalFailed, Manifest
from provider.leases.model import Entry, Phase, Slot, Wanted

ENTRY = Entry(lease="a", wanted=Wanted(lease="a", state=LeaseState.MATCHED, generation=1, host="h"), first_seen_ms=5)


def test_what_is_written_is_there_after_kill(tmp_path: Path) -> None:
    """Entries, manifests and facts outlive a process that was killed right after writing them."""
    code = (
        "import sys, os, signal; from pathlib import Path\n"
        "from tests.provider.leases.test_journal import *\n"
        "j = Journal(Path(sys.argv[1])); j.add(ENTRY)\n"
        "j.keep_manifest(Manifest('a', 's', 'g', (), b'[1]'), (Slot('web', 0),))\n"
        "j.change('a', ports={'web/0/80/tcp': 81}, phase=Phase.RUNNING); j.keep_fact('x', 'y')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "journal.db"
    done = subprocess.run([sys.executable, "-c", code, str(path)], timeout=120, check=False, cwd=Path(__file__).parents[3])
    assert done.returncode == -9

    with Journal(path) as journal:
        entry = journal.get("a")
        assert entry is not None
        assert (entry.spec, entry.slots, entry.ports, entry.phase) == (
            "s",
            (Slot("web", 0),),
            {"web/0/80/tcp": 81},
            Phase.RUNNING,
        )
        assert journal.manifest("a") == Manifest("a", "s", "g", (), b"[1]")
        assert journal.fact("x") == "y"
        journal.forget("a")
    with Journal(path) as journal:
        assert not journal.entries()
        assert journal.manifest("a") is None


def test_the_journal_is_private(tmp_path: Path) -> None:
    """Manifests hold secrets: nobody else may read the file."""
    with Journal(tmp_path / "journal.db"):
        assert stat.S_IMODE((tmp_path / "journal.db").stat().st_mode) == 0o600


def test_a_home_has_one_daemon(tmp_path: Path) -> None:
    """A second daemon on a home is refused, and told which process has it."""
    lock = HomeLock(tmp_path)
    with pytest.raises(HomeBusy, match=str(os.getpid())) as refused:
        HomeLock(tmp_path)
    lock.release()

    assert refused.value.exit_code == 5
    HomeLock(tmp_path).release()


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    """A file that is no journal is named in the refusal, and not overwritten."""
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database at all, but long enough to look at" * 20)

    with pytest.raises(JournalFailed, match=r"journal\.db"):
        Journal(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path: Path) -> None:
    """When the disk is full a change is refused, and neither memory nor file has it."""
    script = (
        "import sys, resource, signal; from pathlib import Path\n"
        "from tests.provider.leases.test_journal import *\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "j = Journal(Path(sys.argv[1])); j.add(ENTRY)\n"
        "size = max(p.stat().st_size for p in Path(sys.argv[1]).parent.iterdir())\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1024, size + 1024))\n"
        "try:\n"
        "    for n in range(1000): j.change('a', error='x' * 5000 + str(n))\n"
        "    print('no failure')\n"
        "except JournalFailed as error:\n"
        "    print(error.fix, len(j.get('a').error) in (0, 5001, 5002, 5003))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "journal.db")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert "make room" in done.stdout, done.stderr
    assert "True" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    with Journal(tmp_path / "journal.db") as journal:
        assert journal.get("a") is not None
