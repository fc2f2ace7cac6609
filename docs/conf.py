"""Sphinx configuration: `sphinx-build -W --keep-going docs build/docs`."""

from importlib.metadata import version as installed_version

import click
from docutils import nodes
from docutils.parsers.rst import Directive

project = "spatiotemporal-zoo"
author = "The spatiotemporal-zoo authors"
copyright = author
release = version = installed_version("spatiotemporal-zoo")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = "spatiotemporal-zoo"

myst_heading_anchors = 3
# A Markdown file is named as a reader of the repository sees it, so examples keep README.md.
exclude_patterns = ["_build"]

autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88


class CommandHelp(Directive):
    """The `--help` of every command, as literal text: ``{command-help}``."""

    def run(self) -> list[nodes.Node]:
        """Make one section per command, with its subcommands."""
        from zoo.cli import zoo

        context = click.Context(zoo, info_name="zoo", terminal_width=88, **zoo.context_settings)
        return list(self._sections(zoo, context))

    def _sections(self, group, context):
        for name in sorted(group.list_commands(context)):
            command = group.get_command(context, name)
            child = click.Context(command, context, info_name=name, terminal_width=88)
            title = child.command_path
            section = nodes.section(ids=[nodes.make_id(title)], names=[title])
            section += nodes.title(text=title)
            text = command.get_help(child)
            section += nodes.literal_block(text, text, language="text")
            if isinstance(command, click.Group):
                section += list(self._sections(command, child))
            self.state.document.note_implicit_target(section)
            yield section


def setup(app):
    """Register the directive."""
    app.add_directive("command-help", CommandHelp)
