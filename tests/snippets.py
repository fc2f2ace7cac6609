"""Run the code blocks of a Markdown page in their order, in the current folder.

A block whose first line is a comment with a path (`# recipe.toml`) is written to that file. Other
`python` blocks are executed in one namespace, and the commands of `console` blocks are run. `sh`
blocks are not run: they need a network, or an account.
"""

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from click.testing import CliRunner

from zoo.cli import zoo as command
from zoo.plugins import forget

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\S+\.\w+)\n")


def read_blocks(page: Path) -> list[tuple[str, str]]:
    """The languages and sources of a page's code blocks."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run_page(
    page: Path,
    *,
    replace: Mapping[str, str] | None = None,
    before: Callable[[list[str]], list[str] | None] = lambda arguments: arguments,
    before_python: Callable[[str], None] = lambda source: None,
) -> dict[str, object]:
    """Run a page and return the names that its Python blocks define.

    Args:
        page: the Markdown file.
        replace: texts to replace in files that the page writes, to keep the work small.
        before: called with the arguments of each `zoo` command; returns those to run instead,
            or None to skip the command.
        before_python: called with the source of each `python` block before it is executed.
    """
    names: dict[str, object] = {"__name__": page.stem}
    for language, source in read_blocks(page):
        if file := FILE.match(source):
            for old, new in (replace or {}).items():
                source = source.replace(old, new)
            Path(file[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(file[1]).write_text(source, encoding="utf-8")
        elif language == "python":
            before_python(source)
            exec(compile(source, str(page), "exec"), names)
        elif language == "console":
            for line in source.splitlines():
                program, *arguments = shlex.split(line.removeprefix("$ "), comments=True)
                if program == "zoo":
                    if (changed := before(arguments)) is not None:
                        run_zoo(changed)
                else:
                    assert [program, arguments[0]] == ["pip", "install"], line
                    install(Path(arguments[-1].partition("[")[0]))
    return names


def run_zoo(arguments: list[str]) -> None:
    """Run a command that must succeed."""
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, f"zoo {shlex.join(arguments)}\n{result.output}"


def install(project: Path, target: Path = Path("site")) -> None:
    """Install a plugin project into a folder, which must be on sys.path."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", target, project.resolve()], check=True
    )
    importlib.invalidate_caches()  # the folder may be newer than the last search
    forget()
