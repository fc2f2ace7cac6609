"""The command line: one module a command, each of which parses, calls and prints."""

from __future__ import annotations

import warnings
from typing import Any

import click

from zoo.cli.card import card
from zoo.cli.check import check
from zoo.cli.common import echo
from zoo.cli.convert import convert
from zoo.cli.cost import cost
from zoo.cli.data import data
from zoo.cli.demo import demo
from zoo.cli.eval import eval_
from zoo.cli.info import info
from zoo.cli.list import list_
from zoo.cli.new import new
from zoo.cli.plugins import plugins
from zoo.cli.predict import predict
from zoo.cli.publish import publish
from zoo.cli.pull import pull
from zoo.cli.runs import runs
from zoo.cli.search import search
from zoo.cli.train import train
from zoo.errors import ZooError
from zoo.extras import suggest_extra

__all__ = ["COMMANDS", "main"]

#: The zoo's own commands by name.
COMMANDS: dict[str, click.Command] = {
    str(command.name): command
    for command in (
        *(list_, search, info, pull, predict, eval_, train, runs, data, demo, convert, cost),
        *(card, publish, new, check, plugins),
    )
}


class _Group(click.Group):
    """A group in which what a user can mend ends with one line and exit code 2."""

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One of the zoo's own, or else a plugin's; no plugin is imported for the former."""
        from zoo.plugins import find

        if own := super().get_command(context, name):
            return own
        found = find("commands", name)
        return found[0] if found else None

    def invoke(self, context: click.Context) -> Any:
        warnings.showwarning = _show_warning
        try:
            with suggest_extra():
                return super().invoke(context)
        except ZooError as error:
            echo(f"Error: {error}", err=True)
            context.exit(2)
        except OSError as error:  # a path that is too long, or not for everybody to read
            if error.filename is None:  # of no path, such as a pipe that nobody reads
                raise
            echo(f"Error: {error.filename}: {error.strerror}; check the path", err=True)
            context.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """One line, and only of what concerns a person at the command line."""
    if issubclass(category, UserWarning):
        echo(f"Warning: {message}", err=True)


@click.group(
    cls=_Group,
    commands=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Plugins may add commands: zoo plugins lists them.",
)
@click.version_option(package_name="spatiotemporal-zoo", prog_name="zoo")
def zoo() -> None:
    """A model zoo for recurrent spatiotemporal prediction.

    A MODEL is the name of a pretrained model (mslstm-mmnist) or of an architecture (mslstm:
    its first pretrained model), local-dir:PATH, or hf-hub:org/name@revision.
    """


def main() -> None:
    """Run the command line."""
    zoo(prog_name="zoo")
