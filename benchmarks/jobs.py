"""What is measured, with whom, and what is to be reached."""

from __future__ import annotations

from dataclasses import dataclass

from .load import Task

__all__ = ["FIGURES", "JOBS", "TARGETS", "Job", "Target"]

_OTHERS = (
    "websockets",
    "starlette",
    "python-socketio",
    "ws",
    "socket.io",
    "uwebsockets",
)
_ALL = ("wse", "wse-pure", *_OTHERS)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing that is measured."""

    name: str
    title: str
    task: Task
    peers: tuple[str, ...]
    figure: str = ""
    """The plot that it belongs to."""

    @property
    def in_kib(self) -> bool:
        """Whether its value is memory, of which less is better."""
        return self.task.kind == "memory"

    @property
    def client(self) -> bool:
        """Whether it is the client that is measured, beside a server of ours."""
        return self.task.kind == "client"


FIGURES = {
    "calls": "Calls per second of server CPU, thousands",
    "deliveries": "Deliveries of broadcasts per second of server CPU, thousands",
    "devices": "Devices: set-ups per second of server CPU, thousands, and memory",
}

JOBS = {
    job.name: job
    for job in (
        Job(
            name="calls-1",
            title="calls, 1 in flight",
            task=Task(kind="calls"),
            peers=(*_ALL, "wse-fastapi", "echo"),
            figure="calls",
        ),
        Job(
            name="calls-16",
            title="calls, 16 in flight",
            task=Task(kind="calls", in_flight=16),
            peers=(
                *_ALL,
                "wse-async",
                "wse-typed",
                "wse-tls",
                "wse-fastapi",
                "wse-two",
                "echo",
            ),
            figure="calls",
        ),
        Job(
            name="calls-1k",
            title="calls of 1 KiB, 16 in flight",
            task=Task(kind="calls", in_flight=16, size=1024),
            peers=(*_ALL, "wse-typed", "echo"),
            figure="calls",
        ),
        Job(
            name="deliveries-1000",
            title="deliveries to 1,000",
            task=Task(kind="deliveries", devices=1000),
            peers=(*_ALL, "write"),
            figure="deliveries",
        ),
        Job(
            name="deliveries-5000",
            title="deliveries to 5,000",
            task=Task(kind="deliveries", devices=5000),
            peers=(*_ALL, "write"),
            figure="deliveries",
        ),
        Job(
            name="burst",
            title="burst of 10 to 1,000",
            task=Task(kind="deliveries", devices=1000, burst=10),
            peers=(*_ALL, "write"),
            figure="deliveries",
        ),
        Job(
            name="setups",
            title="set-ups",
            task=Task(kind="setups", devices=1000),
            peers=_ALL,
            figure="devices",
        ),
        Job(
            name="memory-1000",
            title="KiB per idle device at 1,000",
            task=Task(kind="memory", devices=1000),
            peers=("wse",),
        ),
        Job(
            name="memory-10000",
            title="KiB per idle device at 10,000",
            task=Task(kind="memory", devices=10_000),
            peers=_ALL,
            figure="devices",
        ),
        Job(
            name="client-1",
            title="calls of a client, 1 in flight",
            task=Task(kind="client"),
            peers=("wse-client", "websockets-client"),
        ),
        Job(
            name="client-16",
            title="calls of a client, 16 in flight",
            task=Task(kind="client", in_flight=16),
            peers=("wse-client", "websockets-client"),
        ),
        *(
            Job(
                name=f"send-{users}",
                title=f"messages to one of {users:,} users",
                task=Task(kind="sends", devices=users, burst=50),
                peers=("wse",),
            )
            for users in (10, 10_000)
        ),
        *(
            Job(
                name=f"broadcast-{devices}",
                title=f"deliveries to {devices:,}, one broadcast",
                task=Task(kind="deliveries", devices=devices),
                peers=("wse", "write"),
            )
            for devices in (100, 10_000)
        ),
        *(
            Job(
                name=f"join-{users}",
                title=f"joining and leaving beside {users:,} users",
                task=Task(kind="comings", devices=users),
                peers=("wse",),
            )
            for users in (10, 10_000)
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Target:
    """A ratio to be reached, of one peer's figure in a job to another one."""

    title: str
    job: str
    peer: str = "wse"
    to: str | None = None
    """The other peer; the figure itself is the target when there is none."""
    to_job: str | None = None
    """The other job, where it is not the same."""
    least: float | None = None
    aim: float | None = None
    eager: bool | None = None
    """Whether it is for Pythons whose tasks start at once, 3.12 and later, or for the others."""
    times: float = 1.0
    """What the ratio is multiplied with: two processes have two cores."""

    @property
    def falls(self) -> bool:
        """Whether the target is the most, not the least."""
        return JOBS[self.job].in_kib

    @property
    def against(self) -> str:
        """What it is compared with."""
        if self.to is None:
            return "KiB"
        return self.to if self.to_job is None else JOBS[self.to_job].title

    def meets(self, ratio: float, bound: float) -> bool:
        """Whether the ratio is as it should be."""
        return ratio <= bound if self.falls else ratio >= bound


TARGETS = (
    Target(title="calls, 1 in flight", job="calls-1", to="ws", least=1.25),
    Target(title="calls, 1 in flight", job="calls-1", to="uwebsockets", aim=1.0),
    Target(title="calls, 16 in flight", job="calls-16", to="ws", least=3.0),
    Target(title="calls, 16 in flight", job="calls-16", to="python-socketio", least=23.0),
    Target(title="calls, 16 in flight", job="calls-16", to="uwebsockets", aim=1.0),
    Target(
        title="the same, async handler that does not wait",
        job="calls-16",
        peer="wse-async",
        to="ws",
        least=1.4,
        eager=False,
    ),
    Target(
        title="the same, async handler that does not wait",
        job="calls-16",
        peer="wse-async",
        to="ws",
        least=2.5,
        eager=True,
    ),
    Target(
        title="the same, async handler that does not wait",
        job="calls-16",
        peer="wse-async",
        to="wse",
        aim=1.0,
    ),
    Target(
        title="typed payload instead of plain data",
        job="calls-16",
        peer="wse-typed",
        to="wse",
        least=1.0,
        aim=1.1,
    ),
    Target(title="1 KiB, 16 in flight", job="calls-1k", to="ws", least=1.7),
    Target(title="1 KiB, 16 in flight", job="calls-1k", to="uwebsockets", aim=1.4),
    *(
        target
        for job in ("deliveries-1000", "deliveries-5000")
        for target in (
            Target(title=JOBS[job].title, job=job, to="ws", least=1.1),
            Target(title=JOBS[job].title, job=job, to="write", least=0.85),
            Target(title=JOBS[job].title, job=job, to="uwebsockets", aim=1.0),
        )
    ),
    Target(title="burst of 10 broadcasts to 1,000", job="burst", to="ws", least=6.0),
    Target(title="burst of 10 broadcasts to 1,000", job="burst", to="uwebsockets", aim=1.0),
    Target(title="set-ups with identify and welcome", job="setups", to="ws", least=0.9, aim=2.0),
    Target(title="memory per idle device at 10,000", job="memory-10000", least=7.0, aim=4.0),
    Target(title="TLS, 16 in flight", job="calls-16", peer="wse-tls", to="wse", least=0.8, aim=0.9),
    *(
        Target(
            title=f"inside FastAPI on uvicorn, {JOBS[job].title}",
            job=job,
            peer="wse-fastapi",
            to="starlette",
            least=0.9,
            aim=1.0,
        )
        for job in ("calls-1", "calls-16")
    ),
    *(
        Target(
            title=f"Python client, {JOBS[job].title}",
            job=job,
            peer="wse-client",
            to="websockets-client",
            least=3.0,
        )
        for job in ("client-1", "client-16")
    ),
    Target(
        title="two processes that share a port",
        job="calls-16",
        peer="wse-two",
        to="wse",
        least=1.7,
        aim=1.95,
        times=2.0,
    ),
    Target(
        title="a message to one of 10,000 users",
        job="send-10000",
        to="wse",
        to_job="send-10",
        least=0.9,
        aim=1.0,
    ),
    *(
        Target(
            title=JOBS[job].title,
            job=job,
            to="wse",
            to_job="broadcast-100",
            least=0.9,
            aim=1.0,
        )
        for job in ("deliveries-1000", "broadcast-10000")
    ),
    Target(
        title="joining and leaving beside 10,000 users",
        job="join-10000",
        to="wse",
        to_job="join-10",
        least=0.9,
        aim=1.0,
    ),
    Target(
        title="memory of a device, the 10,000th to the 1,000th",
        job="memory-10000",
        to="wse",
        to_job="memory-1000",
        least=1.1,
        aim=1.0,
    ),
)
