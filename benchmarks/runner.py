"""One job against one peer: its processes, on which cores, in which rounds."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .cpu import cores, pinned
from .jobs import Job
from .load import Figure, Task
from .peers import PEERS, Peer

__all__ = ["Failed", "Run", "Settings", "measure", "measure_all"]

ROOT = Path(__file__).parent.parent
_START = 20.0
"""Seconds that a server may take to start, and a process to end."""
_MOST = 120.0
"""Seconds that one measurement may take, set-up of its devices included."""


class Failed(Exception):
    """A peer that could not be measured; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How thoroughly to measure."""

    rounds: int = 3
    seconds: float = 1.5
    warmup: float = 0.4
    devices: int = 10_000
    """The most that a job may have, whatever it asks for."""

    def task(self, job: Job) -> Task:
        """A job's, as thorough as that."""
        return replace(
            job.task,
            seconds=self.seconds,
            warmup=self.warmup,
            devices=min(job.task.devices, self.devices),
        )


@dataclass(frozen=True)
class Run:
    """What came of one job with one peer, in one round."""

    job: str
    peer: str
    round: int
    figure: Figure | None
    error: str = ""

    @property
    def load_bound(self) -> bool:
        """Whether the server waited for the load."""
        figure = self.figure
        return figure is not None and figure.load > 0.95 and figure.share < 0.95

    @property
    def disturbed(self) -> bool:
        """Whether both sides got less of their cores than they would have used."""
        figure = self.figure
        busy = self.job.startswith("calls") and self.peer != "wse-two"
        return busy and figure is not None and figure.share < 0.9 and figure.load < 0.9


def measure_all(
    pairs: Sequence[tuple[Job, Peer]], settings: Settings, told: Callable[[Run], None]
) -> list[Run]:
    """Every job, round by round: in each, one peer after the other, so that all see the same day.

    Args:
        pairs: What is measured; those of a job together.
        settings: How thoroughly.
        told: Told of each run.
    """
    runs = []
    jobs = dict.fromkeys(job.name for job, _ in pairs)
    for name in jobs:
        for number in range(settings.rounds):
            for job, peer in pairs:
                if job.name != name:
                    continue
                try:
                    run = Run(name, peer.name, number, measure(job, peer, settings))
                except Failed as error:
                    run = Run(name, peer.name, number, None, str(error))
                told(run)
                runs.append(run)
    return runs


def measure(job: Job, peer: Peer, settings: Settings) -> Figure:
    """Start the peer, load it, and stop it.

    Raises:
        Failed: it did not start, or did not answer as it should.
    """
    where = cores()
    if job.client:
        with _program(PEERS["wse"], where.other) as (port, pid):
            return _client(job, peer, settings, port, pid)
    with _program(peer, where.measured) as (port, pid):
        task = replace(settings.task(job), port=port, pid=pid, dialect=peer.dialect, tls=peer.tls)
        command = [sys.executable, "-m", "benchmarks.load"]
        return _figure(command, where.other, said=json.dumps(asdict(task)))


def _client(job: Job, peer: Peer, settings: Settings, port: int, pid: int) -> Figure:
    options = {
        "port": port,
        "server": pid,
        "in-flight": job.task.in_flight,
        "seconds": settings.seconds,
        "warmup": settings.warmup,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return _figure([*peer.command, *words], cores().measured, env=peer.environment)


def _figure(
    command: Sequence[str], core: int, *, said: str = "", env: Mapping[str, str] | None = None
) -> Figure:
    with pinned(core):
        try:
            done = subprocess.run(  # noqa: S603 - our own programs
                command,
                input=said,
                capture_output=True,
                text=True,
                timeout=_MOST,
                cwd=ROOT,
                env=env,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"not done after {_MOST:.0f} seconds") from error
    if done.returncode:
        raise Failed(done.stderr.strip().rpartition("\n")[2])
    return Figure(**json.loads(done.stdout))


@contextmanager
def _program(peer: Peer, core: int) -> Iterator[tuple[int, int]]:
    """A server, from its port to the end of its stdin."""
    with tempfile.TemporaryFile("w+") as errors:
        with pinned(core):
            process = subprocess.Popen(  # noqa: S603 - our own programs
                peer.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=peer.environment,
            )
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], _START)
            line = process.stdout.readline() if ready else b""
            if not line:
                errors.seek(0)
                raise Failed(errors.read().strip().rpartition("\n")[2] or "it does not start")
            yield int(line), process.pid
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It ends with its stdin; if it does not, it is killed."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_START)
    if process.returncode is None:
        process.kill()
        process.wait()
    process.stdout.close()
