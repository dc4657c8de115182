"""Options of the suite: other golden files, and a run in which nothing may be skipped."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", metavar="DIR", help="another folder of golden files for tests/golden")
    parser.addoption("--complete", action="store_true", help="fail if a test is skipped, as where a package is missing")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    reports = [] if reporter is None else reporter.stats.get("skipped", [])
    skipped = [report for report in reports if "make test-lmms" not in report.longrepr[2]]
    if skipped and session.config.getoption("complete") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
    if reasons:
        title = "failed, since tests were skipped" if config.getoption("complete") else "not tested here"
        terminalreporter.section(title)
        for reason, count in reasons.items():
            terminalreporter.write_line(f"{count:4}  {reason.removeprefix('Skipped: ')}")
