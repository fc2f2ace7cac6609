"""Run the contract suite of a cell or head and collect the verdicts."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal, NamedTuple

from zoo.errors import ConfigError, PluginError, ZooError, did_you_mean
from zoo.plugins import names
from zoo.progress import progress_bar
from zoo.registry import find_cell, find_head

try:
    import pytest
except ImportError as error:
    raise ZooError("zoo check needs pytest: pip install pytest") from error

__all__ = ["Verdict", "check_contract", "kind_of"]

SUITES = {
    "cell": """
from zoo.testing import CellContract

class TestCell(CellContract):
    cell = {name!r}
""",
    "head": """
from zoo.testing import HeadContract

class TestHead(HeadContract):
    head = {name!r}
""",
}


class Verdict(NamedTuple):
    """The outcome of one check.

    Attributes:
        architecture: What was checked: an architecture, or a head with its size of patches.
        law: First line of the check's docstring.
        reason: Why the check failed; empty if it passed.
    """

    architecture: str
    law: str
    reason: str


def kind_of(name: str) -> Literal["cell", "head"]:
    """Return whether a name is that of an installed cell or of a head.

    Raises:
        ConfigError: If it is neither.
    """
    if find_cell(name) is not None:
        return "cell"
    if find_head(name) is not None:
        return "head"
    near = did_you_mean(name, [*names("cells"), *names("heads")])
    raise ConfigError(
        f"no installed plugin provides a cell or head {name!r}{near}; see: zoo plugins"
    )


def check_contract(name: str) -> list[Verdict]:
    """Run every check of the contract on an installed cell or head.

    Raises:
        ConfigError: If there is no cell or head of that name.
        PluginError: If not all of the checks ran.
    """
    kind = kind_of(name)
    if "zoo.testing" not in sys.modules:
        pytest.register_assert_rewrite("zoo.testing")
    recorder = _Recorder(name, kind)
    code = _run_pytest(SUITES[kind].format(name=name), recorder)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not recorder.verdicts:
        raise PluginError(f"the checks of {name!r} could not run (pytest exited with {code!r})")
    if recorder.pending:
        raise PluginError(
            f"{len(recorder.pending)} checks of {name!r} did not run, such as "
            f"{min(recorder.pending)}; a pytest plugin deselects them: pip list"
        )
    return recorder.verdicts


def _run_pytest(source: str, recorder: _Recorder) -> int:
    """Run a test module in this process, regardless of the settings of project and shell."""
    with tempfile.TemporaryDirectory() as folder:
        # The module's name is unique because Python imports a name only once per process.
        suite = Path(folder) / f"test_{Path(folder).name}.py"
        suite.write_text(source, encoding="utf-8")
        options = ["-p", "no:terminal", "-p", "no:cacheprovider", "--import-mode=importlib"]
        options += ["-c", os.devnull, f"--rootdir={folder}"]
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as environment:
            environment.delenv("PYTEST_ADDOPTS", raising=False)
            environment.delenv("PYTEST_PLUGINS", raising=False)
            return pytest.main([*options, str(suite)], plugins=[recorder])


class _Recorder:
    """A pytest plugin that records the outcome of every check."""

    def __init__(self, name: str, kind: Literal["cell", "head"]) -> None:
        self.name = name
        self.kind = kind
        self.verdicts: list[Verdict] = []
        self.pending: set[str] = set()  # collected checks without a verdict

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.pending.add(item.name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Any:
        with progress_bar(f"checking {self.name}", len(session.items)) as self.advance:
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function) -> Any:
        report = yield
        if report.when == "call" or not report.passed:
            self.pending.discard(item.name)
            law = (inspect.getdoc(item.function) or item.name).splitlines()[0]
            reason = "" if report.passed else _reason(report)
            self.verdicts.append(Verdict(self._subject(item), law, reason))
            self.advance(len(self.verdicts), "")
        return report

    def _subject(self, item: pytest.Function) -> str:
        parameters = item.callspec.params
        if self.kind == "cell":
            return f"{parameters['architecture']}{self.name}"  # the prefix: "" or "ms-"
        return f"{self.name}, patch {parameters['patch']}"


def _reason(report: pytest.TestReport) -> str:
    """Return the failure of a check in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join((crash.message if crash else str(report.longrepr)).split())[:300]
