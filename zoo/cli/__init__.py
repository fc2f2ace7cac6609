"""The command line: one module a command, which parses, calls and prints."""

from __future__ import annotations

import os
import warnings
from typing import Any

import click

from zoo.cli.common import echo
from zoo.errors import ZooError
from zoo.extras import suggest_extra
from zoo.plugins import Plugin, builtin, find

__all__ = ["find_command", "main"]


def find_command(name: str) -> tuple[click.Command, Plugin] | None:
    """Find the command of that name and the plugin it comes from; None if there is none.

    Raises:
        PluginError: if two plugins claim the name, or what is offered is not a command.
    """
    return find("commands", name, lambda it: isinstance(it, click.Command), "a click.Command")


class _Group(click.Group):
    """The commands of all plugins. Errors that the user can fix end in one line and exit code 2."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The built-in commands, so that --help imports no plugin."""
        return sorted(builtin().offers("commands"))

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """A command by name."""
        found = find_command(name)
        return found[0] if found else None

    def invoke(self, context: click.Context) -> Any:
        warnings.showwarning = _show_warning
        try:
            with suggest_extra():
                return super().invoke(context)
        except ZooError as error:
            echo(f"Error: {error}", err=True)
            context.exit(2)
        except OSError as error:  # such as a path that is too long or not readable
            if error.filename is None:  # not about a path, such as a closed pipe
                raise
            echo(f"Error: {error.filename}: {error.strerror}; check the path", err=True)
            context.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Print warnings for users as one line, and no others."""
    if issubclass(category, UserWarning):
        echo(f"Warning: {message}", err=True)


@click.group(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Plugins may add commands; list them with: zoo plugins",
)
@click.version_option(package_name="spatiotemporal-zoo", prog_name="zoo")
def zoo() -> None:
    """A model zoo for recurrent spatiotemporal prediction.

    A MODEL is the name of a pretrained model (mslstm-mmnist) or of an architecture (mslstm:
    its model of Moving MNIST, or else its first by name), local-dir:PATH, or
    hf-hub:org/name@revision.
    """


def main() -> None:
    """Run the command line."""
    # Before torch is imported: waiting threads spin otherwise, which is slow on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    zoo(prog_name="zoo")
