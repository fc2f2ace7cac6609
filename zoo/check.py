"""Run the contract suite of a cell, head, loss or metric and collect the verdicts."""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import ConfigError, PluginError, ZooError, did_you_mean
from zoo.losses import find_loss
from zoo.plugins import names
from zoo.progress import progress_bar
from zoo.registry import find_cell, find_head
from zoo.scores import find_metric

try:
    import pytest
except ImportError as error:
    raise ZooError("zoo check needs pytest: pip install pytest") from error

__all__ = ["Verdict", "check_contract", "kind_of"]

#: The kinds of plugins with a contract: how they are found, and the names of all.
KINDS: dict[str, tuple[Callable[[str], object], str]] = {
    "cell": (find_cell, "cells"),
    "head": (find_head, "heads"),
    "loss": (find_loss, "losses"),
    "metric": (find_metric, "metrics"),
}

SUITE = """
from zoo.testing import {kind}Contract

class Test({kind}Contract):
    {attribute} = {name!r}
"""


class Verdict(NamedTuple):
    """The outcome of one check.

    Attributes:
        architecture: What was checked: an architecture, a head with its size of patches, or the
            name of a loss or metric.
        law: First line of the check's docstring.
        reason: Why the check failed; empty if it passed.
    """

    architecture: str
    law: str
    reason: str


def kind_of(name: str) -> str:
    """Return whether a name is that of an installed "cell", "head", "loss" or "metric".

    Raises:
        ConfigError: If it is none of them.
    """
    for kind, (find, _) in KINDS.items():
        if find(name) is not None:
            return kind
    near = did_you_mean(name, [known for _, kind in KINDS.values() for known in names(kind)])
    raise ConfigError(
        f"no installed plugin provides a cell, head, loss or metric {name!r}{near}; see: zoo "
        "plugins"
    )


def check_contract(name: str) -> list[Verdict]:
    """Run every check of the contract on an installed cell, head, loss or metric.

    Raises:
        ConfigError: If nothing has that name.
        PluginError: If not all of the checks ran.
    """
    kind = kind_of(name)
    if "zoo.testing" not in sys.modules:
        pytest.register_assert_rewrite("zoo.testing")
    recorder = _Recorder(name, kind)
    suite = SUITE.format(kind=kind.capitalize(), attribute=kind, name=name)
    code = _run_pytest(suite, recorder)
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

    def __init__(self, name: str, kind: str) -> None:
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
        if self.kind == "cell":
            return f"{item.callspec.params['architecture']}{self.name}"  # the prefix: "" or "ms-"
        if self.kind == "head":
            return f"{self.name}, patch {item.callspec.params['patch']}"
        return self.name


def _reason(report: pytest.TestReport) -> str:
    """Return the failure of a check in one line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    return " ".join((crash.message if crash else str(report.longrepr)).split())[:300]
