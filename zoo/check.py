"""Whether a cell keeps the contract: the suite of :mod:`zoo.testing`, run and told in words."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import ZooError, did_you_mean
from zoo.plugins import names
from zoo.progress import progress_bar
from zoo.registry import find_cell

try:
    import pytest
except ImportError as error:
    raise ZooError("zoo check runs the tests of the contract: pip install pytest") from error

__all__ = ["Verdict", "check_cell"]

SUITE = """
from zoo.testing import CellContract

class TestCell(CellContract):
    cell = {cell!r}
"""


class Verdict(NamedTuple):
    """Whether an architecture keeps a law, and why not ("" if it does)."""

    architecture: str
    law: str
    reason: str


def check_cell(cell: str) -> list[Verdict]:
    """Run every check of the contract on an installed cell, in a stack and in a mirror.

    Raises ZooError where no plugin provides the cell, or the checks could not be run.
    """
    if find_cell(cell) is None:
        near = did_you_mean(cell, names("cells"))
        raise ZooError(f"no installed plugin provides the cell {cell!r}{near}; see: zoo plugins")
    if "zoo.testing" not in sys.modules:
        pytest.register_assert_rewrite("zoo.testing")
    recorder = _Recorder(cell)
    with tempfile.TemporaryDirectory() as folder:
        # A name of its own, as a process knows a module by its name for ever.
        suite = Path(folder) / f"test_{Path(folder).name}.py"
        suite.write_text(SUITE.format(cell=cell), encoding="utf-8")
        # No setting of the project or the shell around it has a part in the verdict.
        arguments = ["-p", "no:terminal", "-p", "no:cacheprovider", "-c", os.devnull]
        arguments += ["--import-mode=importlib"]
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as environment:
            for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
                environment.delenv(name, raising=False)
            code = pytest.main([*arguments, f"--rootdir={folder}", str(suite)], plugins=[recorder])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or not recorder.verdicts:
        raise ZooError(f"the checks of {cell!r} could not be run (pytest ended with {code!r})")
    if recorder.left:
        raise ZooError(
            f"{len(recorder.left)} of the checks of {cell!r} were not run, such as "
            f"{min(recorder.left)}; a plugin of pytest leaves them out: pip list"
        )
    return recorder.verdicts


class _Recorder:
    """A plugin of pytest that keeps the outcome of every check."""

    def __init__(self, cell: str) -> None:
        self.cell = cell
        self.verdicts: list[Verdict] = []
        self.left: set[str] = set()  # the checks without a verdict

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        self.left.add(item.name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Any:
        with progress_bar(f"checking {self.cell}", len(session.items)) as self.advance:
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Function) -> Any:
        report = yield
        if report.when == "call" or not report.passed:
            self.left.discard(item.name)
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            reason = " ".join(message.split())[:300] if not report.passed else ""
            prefix = "ms-" if "mirror" in item.callspec.id.split("-") else ""
            law = (inspect.getdoc(item.function) or item.name).splitlines()[0]
            self.verdicts.append(Verdict(prefix + self.cell, law, reason))
            self.advance(len(self.verdicts), "")
        return report
