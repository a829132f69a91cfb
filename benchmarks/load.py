"""The load generator: `python -m benchmarks.load` takes a task on stdin and prints a figure.

It must cost less than the server that it measures. What it sends is made beforehand; what it
hears is compared, bytes with bytes, to what came the first time, whose content was checked. The
kernel wakes it when a whole answer is there (SO_RCVLOWAT), so a batch costs it one read and one
write, whatever the server does. It reports how much of its core it used.
"""

from __future__ import annotations

import json
import resource
import select
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any, Self

from .cpu import cpu_seconds, resident
from .wire import DIALECTS, frame, masked, payload_of

__all__ = ["Figure", "Task", "Wrong", "many_files", "perform"]

_PATIENCE = 20.0
"""Seconds without any answer after which a server is given up."""
_AT_ONCE = 64
"""Connections that are opened at the same time."""
_PER_ADDRESS = 5000
"""Connections from one loopback address, so that its ports do not run out."""
_WANTS = (BlockingIOError, ssl.SSLWantReadError)


class Wrong(Exception):
    """A server that did not answer as it should."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is asked of one server."""

    kind: str
    port: int = 0
    pid: int = 0
    dialect: str = "wse"
    tls: bool = False
    seconds: float = 1.5
    warmup: float = 0.3
    devices: int = 64
    in_flight: int = 1
    size: int = 56
    """Bytes of a call."""
    burst: int = 1


@dataclass(frozen=True)
class Figure:
    """What came of it."""

    value: float
    """Per second of the server's processor time, or KiB."""
    count: int
    cpu: float
    wall: float
    load: float
    """How much of its core the load used, 1.0 is all of it."""

    @property
    def share(self) -> float:
        """How much of a core the server used."""
        return self.cpu / self.wall if self.wall else 0.0


class Stopwatch:
    """Processor time of the server and of this process, and time on the wall, as they go by."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.count = 0
        self._cpu = self._wall = self._own = 0.0

    @contextmanager
    def running(self, count: int = 0) -> Iterator[None]:
        began = cpu_seconds(self._pid), time.perf_counter(), time.process_time()
        yield
        self.count += count
        self._cpu += cpu_seconds(self._pid) - began[0]
        self._wall += time.perf_counter() - began[1]
        self._own += time.process_time() - began[2]

    def figure(self) -> Figure:
        return Figure(
            self.count / self._cpu, self.count, self._cpu, self._wall, self._own / self._wall
        )


# -- opening -----------------------------------------------------------------------------------


class _Opening:
    """One connection until it is welcome."""

    def __init__(self, task: Task, identity: str) -> None:
        self._steps = iter(DIALECTS[task.dialect].opening)
        self._identity = identity
        self._data = b""
        self._awaited = b""
        self.done = False

    def feed(self, data: bytes) -> bytes:
        """Take what came; what is to be said next, or nothing."""
        self._data += data
        if not self._awaited:
            head, end, rest = self._data.partition(b"\r\n\r\n")
            if not end:
                return b""
            if b" 101 " not in head[:16]:
                raise Wrong(f"not upgraded: {head[:200]!r}")
            self._data = rest
            said = self._next()
            if said:
                return said
        while found := frame(self._data):
            text, size = found
            if not text.startswith(self._awaited):
                raise Wrong(f"not welcome: {text[:200]!r}")
            self._data = self._data[size:]
            said = self._next()
            if said or self.done:
                return said
        return b""

    def _next(self) -> bytes:
        step = next(self._steps, None)
        if step is None:
            self.done = True
            return b""
        say, self._awaited = step
        return masked(say.format(identity=self._identity)) if say else b""


class Crowd:
    """Connections of identified devices, all at one server."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.dialect = DIALECTS[task.dialect]
        self.socks: list[socket.socket] = []
        self._upgrade = self.dialect.upgrade(task.port)
        self._numbers = count()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, number: int) -> list[socket.socket]:
        """So many more, `u0` being the first of all; blocking sockets."""
        if self.task.tls:
            opened = [self._open_secure(f"u{next(self._numbers)}") for _ in range(number)]
        else:
            opened = self._open_plain(number)
        self.socks += opened
        return opened

    def close(self, socks: Sequence[socket.socket] | None = None) -> None:
        """Hang up at once, which leaves no port behind in TIME_WAIT."""
        for sock in self.socks if socks is None else socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
        gone = set(self.socks if socks is None else socks)
        self.socks = [sock for sock in self.socks if sock not in gone]

    def _socket(self, number: int) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT of linux/in.h
        sock.bind((f"127.0.0.{2 + number // _PER_ADDRESS % 200}", 0))
        return sock

    def _open_secure(self, identity: str) -> socket.socket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE  # made by the server a moment ago, on this machine
        plain = self._socket(0)
        plain.settimeout(_PATIENCE)
        plain.connect(("127.0.0.1", self.task.port))
        sock = context.wrap_socket(plain)
        sock.sendall(self._upgrade)
        opening = _Opening(self.task, identity)
        while not opening.done:
            said = opening.feed(_some(sock, 65536))
            if said:
                sock.sendall(said)
        return sock

    def _open_plain(self, number: int) -> list[socket.socket]:
        opened: dict[int, socket.socket] = {}
        pending: dict[int, tuple[int, socket.socket, _Opening]] = {}
        poll = select.epoll()

        def start() -> None:
            serial = next(self._numbers)
            sock = self._socket(serial)
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", self.task.port))
            pending[sock.fileno()] = (serial, sock, _Opening(self.task, f"u{serial}"))
            poll.register(sock, select.EPOLLOUT)

        left = number
        try:
            while len(opened) < number:
                while left and len(pending) < _AT_ONCE:
                    start()
                    left -= 1
                events = poll.poll(_PATIENCE)
                if not events:
                    raise Wrong(f"{len(pending)} connections are not welcome")
                for fd, event in events:
                    serial, sock, opening = pending[fd]
                    if event == select.EPOLLOUT:
                        sock.send(self._upgrade)
                        poll.modify(fd, select.EPOLLIN)
                        continue
                    said = opening.feed(_some(sock, 65536))
                    if said:
                        sock.send(said)
                    if opening.done:
                        poll.unregister(fd)
                        sock.settimeout(_PATIENCE)
                        del pending[fd]
                        opened[serial] = sock
        finally:
            poll.close()
            for _, sock, _ in pending.values():
                sock.close()
        return [opened[serial] for serial in sorted(opened)]


def _some(sock: socket.socket, size: int) -> bytes:
    data = sock.recv(size)
    if not data:
        raise Wrong("the server hung up")
    return data


def _whole(sock: socket.socket) -> tuple[bytes, bytes]:
    """The next frame of a blocking socket: its text, and all its bytes."""
    data = b""
    while not (found := frame(data)):
        data += _some(sock, 65536)
    text, size = found
    if size != len(data):
        raise Wrong(f"more than was asked for: {data[size : size + 200]!r}")
    return text, data


def _same(frames: set[bytes]) -> bytes:
    if len(frames) != 1:
        raise Wrong(f"answers that differ: {frames!r}")
    return frames.pop()


# -- pumping -----------------------------------------------------------------------------------


class Pump:
    """Waits until each of some sockets has got what is expected, again and again."""

    def __init__(self, socks: Sequence[socket.socket], expected: bytes) -> None:
        self.expected = expected
        self._poll = select.epoll()
        self._by_fd = {sock.fileno(): sock for sock in socks}
        self._partial: dict[int, bytes] = {}
        for sock in socks:
            sock.setblocking(False)
            if not isinstance(sock, ssl.SSLSocket):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, min(len(expected), 32768))
            self._poll.register(sock, select.EPOLLIN)

    def close(self) -> None:
        self._poll.close()

    def ready(self) -> list[socket.socket]:
        """Sockets that have got all of it, at least one event's worth."""
        expected, size = self.expected, len(self.expected) + 1
        events = self._poll.poll(_PATIENCE)
        if not events:
            raise Wrong("no more answers")
        done = []
        for fd, _ in events:
            sock = self._by_fd[fd]
            try:
                data = sock.recv(size)
            except _WANTS:
                continue
            if data == expected or self._completes(fd, sock, data):
                done.append(sock)
        return done

    def _completes(self, fd: int, sock: socket.socket, data: bytes) -> bool:
        """Whether this is the rest of what is expected."""
        whole = self._partial.pop(fd, b"") + data
        while data and len(whole) < len(self.expected):
            try:
                data = sock.recv(len(self.expected))
            except _WANTS:
                break
            whole += data
        if whole == self.expected:
            return True
        if not data or not self.expected.startswith(whole):
            raise Wrong(f"unexpected: {whole[:200]!r}")
        self._partial[fd] = whole
        return False


def _drive(task: Task, turn: Callable[[], int], idle: Callable[[], None]) -> Figure:
    """Take turns until the time is up; each says how much was done in it."""
    until = time.perf_counter() + task.warmup
    while time.perf_counter() < until:
        turn()
    watch = Stopwatch(task.pid)
    with watch.running():
        until = time.perf_counter() + task.seconds
        while time.perf_counter() < until:
            watch.count += turn()
    idle()
    return watch.figure()


def _settled(pid: int) -> None:
    """Wait until a server has nothing left to do."""
    calm, before = 0, cpu_seconds(pid)
    until = time.perf_counter() + _PATIENCE
    while calm < 3 and time.perf_counter() < until:
        time.sleep(0.02)
        now = cpu_seconds(pid)
        calm = calm + 1 if now - before < 0.001 else 0
        before = now


# -- tasks -------------------------------------------------------------------------------------


def _calls(task: Task) -> Figure:
    """So many calls in flight on each connection: all are answered before the next are made."""
    with Crowd(task) as crowd:
        socks = crowd.open(task.devices)
        payload = payload_of(crowd.dialect, task.size)
        request = masked(crowd.dialect.call("echo", payload))
        answers = set()
        for sock in socks:
            sock.sendall(request)
            text, whole = _whole(sock)
            if crowd.dialect.result(text) != payload:
                raise Wrong(f"a wrong answer: {text!r}")
            answers.add(whole)
        pump = Pump(socks, _same(answers) * task.in_flight)
        requests, done = request * task.in_flight, task.in_flight
        for sock in socks:
            _send(sock, requests)

        def turn() -> int:
            ready = pump.ready()
            for sock in ready:
                _send(sock, requests)
            return len(ready) * done

        return _drive(task, turn, pump.close)


def _send(sock: socket.socket, data: bytes) -> None:
    if sock.send(data) != len(data):
        raise Wrong("the server does not read")


def _pushes(task: Task, message: str, hearers: Sequence[int], crowd: Crowd) -> Figure:
    """One asks, and each of these hears so many messages of the server."""
    asker = crowd.socks[0]
    socks = [crowd.socks[number] for number in hearers]
    asker.sendall(masked(crowd.dialect.event(message, _asked(1, hearers))))
    frames = set()
    for sock in socks:
        text, whole = _whole(sock)
        news = crowd.dialect.news(text)
        if news["number"] != 1:
            raise Wrong(f"wrong news: {text!r}")
        frames.add(whole)
    pump = Pump(socks, _same(frames) * task.burst)
    request = masked(crowd.dialect.event(message, _asked(task.burst, hearers)))
    asker.setblocking(False)

    def turn() -> int:
        _send(asker, request)
        missing = len(socks)
        while missing:
            missing -= len(pump.ready())
        return len(socks) * task.burst

    return _drive(task, turn, pump.close)


def _asked(number: int, hearers: Sequence[int]) -> dict[str, Any]:
    few = hearers if len(hearers) <= 10 else ()
    return {"count": number, "to": [f"u{hearer}" for hearer in few]}


def _deliveries(task: Task) -> Figure:
    """Broadcasts to everybody, `burst` at a time."""
    with Crowd(task) as crowd:
        crowd.open(task.devices)
        return _pushes(task, "cast", range(task.devices), crowd)


def _sends(task: Task) -> Figure:
    """Messages to ten users, however many there are, `burst` to each at a time."""
    with Crowd(task) as crowd:
        crowd.open(task.devices)
        step = task.devices // 10
        return _pushes(task, "tell", range(0, 10 * step, step), crowd)


def _setups(task: Task) -> Figure:
    """Connections opened, upgraded, identified and welcome; closing them is not counted."""
    with Crowd(task) as crowd:
        crowd.close(crowd.open(min(task.devices, 200)))
        watch = Stopwatch(task.pid)
        until = time.perf_counter() + task.seconds
        while not watch.count or time.perf_counter() < until:
            _settled(task.pid)
            with watch.running(task.devices):
                socks = crowd.open(task.devices)
            crowd.close(socks)
        return watch.figure()


def _comings(task: Task) -> Figure:
    """Coming and going of some, while so many others stay."""
    with Crowd(task) as crowd:
        crowd.open(task.devices)
        some = min(200, 10 * task.devices)
        crowd.close(crowd.open(some))
        watch = Stopwatch(task.pid)
        until = time.perf_counter() + task.seconds
        while not watch.count or time.perf_counter() < until:
            _settled(task.pid)
            with watch.running(some):
                crowd.close(crowd.open(some))
                _settled(task.pid)
        return watch.figure()


def _memory(task: Task) -> Figure:
    """KiB for each idle device, after a collection of garbage where the server has one."""
    with Crowd(task) as crowd:
        crowd.close(crowd.open(min(100, task.devices)))
        (asker,) = crowd.open(1)
        before = _held(crowd, asker)
        began = time.perf_counter()
        crowd.open(task.devices)
        value = (_held(crowd, asker) - before) / task.devices / 1024
        return Figure(value, task.devices, 0.0, time.perf_counter() - began, 0.0)


def _held(crowd: Crowd, asker: socket.socket) -> int:
    _settled(crowd.task.pid)
    asker.sendall(masked(crowd.dialect.call("collect", None)))
    _whole(asker)
    _settled(crowd.task.pid)
    return resident(crowd.task.pid)


TASKS = {
    "calls": _calls,
    "deliveries": _deliveries,
    "sends": _sends,
    "setups": _setups,
    "comings": _comings,
    "memory": _memory,
}


def perform(task: Task) -> Figure:
    """Do it, and say what came of it.

    Raises:
        Wrong: the server did not answer as it should.
    """
    return TASKS[task.kind](task)


def many_files() -> int:
    """Let this process have as many sockets open as the system allows; how many that is."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def main() -> None:
    many_files()
    json.dump(asdict(perform(Task(**json.load(sys.stdin)))), sys.stdout)


if __name__ == "__main__":
    main()
