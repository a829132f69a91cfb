"""What watches the whole run."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import wiretap


def pytest_configure(config: pytest.Config) -> None:
    folder = TemporaryDirectory()
    config.add_cleanup(folder.cleanup)
    wiretap.start(Path(folder.name, "leaks"))


def pytest_runtest_setup() -> None:
    wiretap.start_log()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test during which something leaked has failed."""
    report = yield
    leaks = "\n".join(wiretap.heard())
    if leaks and report.failed:
        report.sections.append(("what leaked", leaks))
    elif leaks:
        report.outcome, report.longrepr = "failed", leaks
    return report
