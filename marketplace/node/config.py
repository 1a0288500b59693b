"""A node's settings, read once: flag before environment before `node.toml` in its home before default."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.listen import parse_listen

PREFIX: Final = "GPUBID_NODE_"
DEFAULT_LISTEN: Final = "127.0.0.1:8080"


class NodeConfig(BaseModel):
    """Settings of a node. `home` holds its chain, key and genesis; `database` is a URL, SQLite in the home by default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    listen: str = DEFAULT_LISTEN
    database: str = ""
    dev: bool = False
    log_level: Annotated[str, Field(pattern="^(debug|info|warning|error)$")] = "info"
    max_connections: Annotated[int, Field(ge=1, le=100_000)] = 2_000

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        parse_listen(value)
        return value

    @field_validator("database")
    @classmethod
    def _check_database(cls, value: str) -> str:
        if value and not _is_database(value):
            # The value itself stays unsaid: it may hold a password.
            raise ValueError("not a database; it is sqlite:////absolute/file or postgresql://user@host/name")
        return value

    @property
    def url(self) -> str:
        """URL of the database."""
        return self.database or f"sqlite:///{self.home.resolve() / 'chain.db'}"


def _is_database(url: str) -> bool:
    import sqlalchemy as sa

    try:
        found = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):
        return False
    if found.drivername == "sqlite":
        # A relative file would be another chain wherever the node is started from.
        return Path(found.database or "").is_absolute()
    return found.drivername in ("postgresql", "postgres")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{path} cannot be read: {error}", Exit.USAGE) from None


def _from_environment() -> dict[str, Any]:
    known = set(NodeConfig.model_fields) - {"home"}
    out = {}
    for name, value in os.environ.items():
        if name.startswith(PREFIX):
            field = name.removeprefix(PREFIX).lower()
            if field not in known:
                raise CommandFailed(f"there is no setting {name}", Exit.USAGE, fix=f"known: {', '.join(sorted(known))}")
            out[field] = value
    return out


def load(home: Path, flags: dict[str, Any]) -> NodeConfig:
    """The settings in force for a node at `home`; CommandFailed names what is wrong. Flags that are None were not given."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return NodeConfig(home=home, **(_from_file(home / "node.toml") | _from_environment() | given))
    except (ValidationError, TypeError) as error:
        if isinstance(error, ValidationError):
            wrong = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        else:
            wrong = str(error)
        raise CommandFailed(
            f"a setting of the node is wrong: {wrong}", Exit.USAGE, fix="see marketplace/node/README.md"
        ) from None


def node_home(home: Path) -> Path:
    """The node's folder in a user's home."""
    return home / "node"
