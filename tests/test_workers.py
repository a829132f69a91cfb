from __future__ import annotations

import pytest
from support import real_time

from wse import WseServer
from wse.workers import count_workers, warn_of_workers


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


@pytest.mark.parametrize("way", ["asgi", "aiohttp_handler"])
@pytest.mark.parametrize(("asked", "warnings"), [("4", 1), ("1", 0)])
def test_a_server_within_a_web_server_warns_once_of_its_siblings(
    way: str,
    asked: str,
    warnings: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    warn_of_workers.cache_clear()
    monkeypatch.setenv("WEB_CONCURRENCY", asked)
    server: WseServer = WseServer(lambda attempt: attempt.refuse())
    assert not caplog.records
    for _ in range(2):
        getattr(server, way)()
    assert caplog.text.count("one of 4 workers") == warnings


@real_time
async def test_a_server_by_itself_has_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_of_workers.cache_clear()
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    server: WseServer = WseServer(lambda attempt: attempt.refuse())
    async with server.listen(port=0):
        pass
    assert not caplog.records
