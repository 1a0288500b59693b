"""The one command, `gpubid`: finds command groups by entry points and loads only the one that is asked for."""

import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import click

from ledger.cli.failure import Exit, exit_code_of, refused_by_system, report

ENTRY_POINTS: Final = "gpubid.commands"


class Dispatcher(click.Group):
    """A group whose commands live in other packages."""

    def _entries(self) -> dict[str, EntryPoint]:
        return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, own and found."""
        return sorted({*super().list_commands(ctx), *self._entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the command of that name; None where there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = self._entries().get(cmd_name)
        if entry is None:
            return None
        command = entry.load()
        assert isinstance(command, click.Command), f"{cmd_name} is not a command"
        return command


@click.group(cls=Dispatcher, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gpubid", prog_name="gpubid")
def cli() -> None:
    """A market for GPU time that nobody owns."""


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes gpubid in a shell."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, shell
    click.echo(found(cli, {}, "gpubid", "_GPUBID_COMPLETE").source())


def main() -> None:
    """Run the command line and leave with the documented exit code."""
    if sys.flags.optimize:
        sys.stderr.write("gpubid: refuses to run under python -O: its assertions are part of its safety\n")
        raise SystemExit(1)
    try:
        status = cli.main(standalone_mode=False, prog_name="gpubid", complete_var="_GPUBID_COMPLETE")
        raise SystemExit(status if isinstance(status, int) else 0)
    except click.exceptions.Exit as done:
        raise SystemExit(done.exit_code) from None
    except click.Abort:
        sys.stderr.write("\n")
        raise SystemExit(130) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # The reader of a pipe went away, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        # What the disk or the system refuses is the user's to mend; what is expected has its own words.
        report(error if exit_code_of(error) is not None else refused_by_system(error))
        raise SystemExit(exit_code_of(error) or int(Exit.FAILURE)) from None
    except Exception as error:
        status = exit_code_of(error)
        if status is None:
            raise
        report(error)
        raise SystemExit(status) from None
