from __future__ import annotations

import pytest

from wse import WseServer, testing
from wse.workers import count_workers


@pytest.mark.parametrize(
    ("environ", "argv", "workers"),
    [
        ({}, [], 1),
        ({}, ["/usr/bin/uvicorn", "app:app"], 1),
        ({}, ["/usr/bin/uvicorn", "app:app", "--workers", "4"], 4),
        ({}, ["/app/.venv/bin/granian", "--workers=3", "app:app"], 3),
        ({}, ["gunicorn", "-w", "2", "app:app"], 2),
        ({}, ["gunicorn", "-w2", "app:app"], 2),
        ({}, ["/lib/uvicorn/__main__.py", "app:app", "--workers", "1"], 1),
        ({}, ["uvicorn", "app:app", "--workers"], 1),
        ({}, ["uvicorn", "--workers", "many"], 1),
        ({}, ["program.py", "--workers", "4"], 1),
        ({"WEB_CONCURRENCY": "5"}, ["uvicorn", "app:app"], 5),
        ({"WEB_CONCURRENCY": "5"}, ["uvicorn", "app:app", "--workers", "2"], 2),
        ({"WEB_CONCURRENCY": ""}, ["uvicorn"], 1),
        ({"WEB_CONCURRENCY": "auto"}, ["uvicorn"], 1),
    ],
)
def test_what_a_web_server_was_asked_for(
    environ: dict[str, str], argv: list[str], workers: int
) -> None:
    assert count_workers(environ, argv) == workers


@pytest.mark.parametrize(("asked", "warnings"), [("4", 1), ("1", 0)])
@testing.virtual_time
async def test_a_server_warns_once_of_its_siblings(
    asked: str,
    warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", asked)
    server = WseServer(lambda attempt: attempt.accept(attempt.identity))
    async with testing.Network(server) as network:
        await network.connect("alice")
        await network.connect("bob")
    assert caplog.text.count("one of 4 workers") == warnings
