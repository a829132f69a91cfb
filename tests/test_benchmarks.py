"""The benchmarks run, tell a wrong answer, and are told right; and what things cost, counted.

Time depends on the machine. What is counted here does not: it fails where an optimization is lost.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from carriers import FakeStream
from click.testing import CliRunner
from crowd import linux, say
from support import real_time
from websockets.asyncio.client import connect
from websockets.protocol import Side
from websockets.typing import Subprotocol

import wse
from benchmarks import __main__ as command
from benchmarks import report as reports
from benchmarks import runner
from benchmarks.cpu import cpu_seconds, family
from benchmarks.jobs import FIGURES, JOBS, TARGETS, Job, Target
from benchmarks.load import Figure, Pump, Wrong
from benchmarks.peers import PEERS, Peer
from benchmarks.report import Report
from benchmarks.runner import Failed, Run, Settings, measure, measure_all
from wse import WseConnection, WseIdentity, WseJSON, WseServer, testing
from wse.desk import Desk
from wse.transports.base import Handshake
from wse.transports.lane import Lane
from wse.transports.stream import StreamTransport

TINY = Settings(rounds=1, seconds=0.05, warmup=0.01, devices=20)
ROOT = Path(__file__).parent.parent


# -- the harness -----------------------------------------------------------------------------------


def miniatures() -> list[Any]:
    """Every job with us; calls and broadcasts with each of the others."""
    return [
        pytest.param(job, PEERS[name], id=f"{job.name} {name}")
        for job in JOBS.values()
        for name in job.peers
        if name in {"wse", "wse-client"} or job.name in {"calls-16", "client-16", "burst"}
    ]


@linux
@pytest.mark.parametrize(("job", "peer"), miniatures())
def test_each_job_runs_in_miniature(job: Job, peer: Peer) -> None:
    if peer.missing():
        pytest.skip(str(peer.missing()))
    figure = measure(job, peer, TINY)
    assert figure.count > 0
    if not job.in_kib:
        assert figure.value == pytest.approx(figure.count / figure.cpu)
        assert figure.wall >= (0.05 if job.task.kind not in {"setups", "comings"} else 0)


@dataclass(frozen=True, kw_only=True)
class Script(Peer):
    """A peer for a test."""

    source: str

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-c", self.source]


def script(source: str) -> Script:
    return Script(name="script", program="", about="", source=source)


ANSWERS_WRONG = """
from benchmarks.peers.wse import make_server, run, serve
run(serve(make_server(lambda conn, payload: {**payload, "number": 2}), None))
"""
HANGS_UP = """
from benchmarks.peers.wse import make_server, run, serve
run(serve(make_server(lambda conn, payload: conn.drop()), None))
"""


@linux
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (ANSWERS_WRONG, "Wrong: a wrong answer"),
        (HANGS_UP, "no text frame"),
        ("raise OSError('no such thing')", "no such thing"),
        ("", "it does not start"),
    ],
    ids=["a wrong answer", "hangs up", "fails to start", "ends at once"],
)
def test_a_server_that_does_not_do_its_part_has_no_figure(source: str, said: str) -> None:
    with pytest.raises(Failed, match=said):
        measure(JOBS["calls-16"], script(source), TINY)


@linux
def test_a_peer_that_fails_is_told_of_and_the_others_are_measured() -> None:
    heard: list[Run] = []
    pairs = [(JOBS["calls-1"], script("")), (JOBS["calls-1"], PEERS["wse"])]
    runs = measure_all(pairs, replace(TINY, rounds=2), heard.append)
    assert heard == runs
    assert [(run.peer, run.round, run.figure is None) for run in runs] == [
        ("script", 0, True),
        ("wse", 0, False),
        ("script", 1, True),
        ("wse", 1, False),
    ]


@linux
def test_no_server_outlives_its_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    started: set[int] = set()

    def instead_of_the_load(*_: Any, **__: Any) -> Figure:
        started.update(set(family(os.getpid())) - before)
        return Figure(1.0, 1, 1.0, 1.0, 0.0)

    before = set(family(os.getpid()))
    monkeypatch.setattr(runner, "_figure", instead_of_the_load)
    measure(JOBS["calls-16"], PEERS["wse-two"], TINY)
    assert len(started) == 3
    while any(Path(f"/proc/{pid}").exists() for pid in started):
        os.sched_yield()


def pair() -> tuple[socket.socket, socket.socket]:
    here, there = socket.socketpair()
    return here, there


def test_the_load_waits_for_the_whole_of_an_answer() -> None:
    here, there = pair()
    with here, there:
        pump = Pump([here], b"abcdef")
        there.sendall(b"abc")
        assert pump.ready() == []
        there.sendall(b"def")
        assert pump.ready() == [here]
        pump.close()


@pytest.mark.parametrize("said", [b"abcdeX", b"abcdefg", b"X", b""])
def test_the_load_takes_nothing_else_for_an_answer(said: bytes) -> None:
    here, there = pair()
    with here, there:
        pump = Pump([here], b"abcdef")
        there.sendall(said)
        if not said:
            there.close()
        with pytest.raises(Wrong):
            pump.ready()
        pump.close()


@linux
def test_the_processor_time_of_a_process_counts_what_it_started() -> None:
    before = cpu_seconds(os.getpid())
    sum(range(10**6))
    assert 0 < cpu_seconds(os.getpid()) - before < 10


# -- the report ------------------------------------------------------------------------------------


def run(
    job: str, peer: str, number: int, value: float, *, load: float = 0.1, cpu: float = 1.0
) -> Run:
    return Run(job, peer, number, Figure(value, 1, cpu, 1.0, load))


def told(*runs: Run) -> Report:
    return Report(runs, TINY, {"python": "3.11.0"}, {})


TARGET = Target(title="", job="calls-1", to="ws", least=1.25, aim=2.0)


def test_a_result_is_the_median_of_the_ratios_within_rounds() -> None:
    report = told(
        *(run("calls-1", "wse", number, value) for number, value in enumerate([100, 10, 90])),
        *(run("calls-1", "ws", number, value) for number, value in enumerate([100, 5, 30])),
    )
    assert report.ratio(TARGET) == 2.0
    assert report.value("calls-1", "wse") == 90


def test_a_round_that_failed_on_one_side_is_left_out() -> None:
    report = told(
        run("calls-1", "wse", 0, 10),
        run("calls-1", "wse", 1, 30),
        Run("calls-1", "ws", 0, None, "hung up"),
        run("calls-1", "ws", 1, 10),
    )
    assert report.ratio(TARGET) == 3.0
    assert list(report.errors()) == ["calls-1, ws: hung up"]
    assert told(run("calls-1", "wse", 0, 10)).ratio(TARGET) is None


@pytest.mark.parametrize(("ratio", "verdict"), [(0.8, "**no**"), (1.3, "yes"), (2.0, "the aim")])
def test_the_table_says_what_was_reached(ratio: float, verdict: str) -> None:
    report = told(run("setups", "wse", 0, ratio), run("setups", "ws", 0, 1))
    assert report.targets_table()[1][-2:] == [f"{ratio:.2f} x", verdict]


@pytest.mark.parametrize(("kib", "verdict"), [(8, "**no**"), (5, "yes"), (3, "the aim")])
def test_of_memory_less_is_better(kib: float, verdict: str) -> None:
    rows = told(run("memory-10000", "wse", 0, kib)).targets_table()
    assert rows[1][-2:] == [f"{kib:.2f}", verdict]


def test_two_processes_count_twice() -> None:
    report = told(run("calls-16", "wse-two", 0, 90), run("calls-16", "wse", 0, 100))
    (target,) = (one for one in TARGETS if one.peer == "wse-two")
    assert report.ratio(target) == pytest.approx(1.8)


@pytest.mark.parametrize(
    ("job", "load", "cpu", "cell"),
    [
        ("calls-16", 1.0, 0.5, "500*"),
        ("calls-16", 0.2, 0.5, "500\N{DAGGER}"),
        ("calls-16", 0.2, 1.0, "500"),
        ("burst", 0.2, 0.5, "500"),
    ],
)
def test_a_figure_is_marked_where_the_server_waited(
    job: str, load: float, cpu: float, cell: str
) -> None:
    assert told(run(job, "wse", 0, 500_000, load=load, cpu=cpu)).cell(job, "wse") == cell


def test_a_report_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    report = Report((run("burst", "wse", 0, 500_000), Run("burst", "ws", 0, None, "no")), TINY)
    report.save(tmp_path / "new" / "report.json")
    again = Report.load(tmp_path / "new" / "report.json")
    assert again.markdown() == report.markdown()


@linux
def test_the_command_measures_what_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "QUICK", TINY)
    monkeypatch.setattr(command, "RESULTS", tmp_path)
    asked = ["--quick", "--job", "calls-1", "--peer", "wse"]
    result = CliRunner().invoke(command.main, asked)
    assert result.exit_code == 0, result.output
    (run,) = Report.load(tmp_path / "latest.json").runs
    assert (run.job, run.peer, run.round) == ("calls-1", "wse", 0)
    assert JOBS["calls-1"].title in result.output


def test_the_command_fails_where_there_is_nothing_to_measure() -> None:
    result = CliRunner().invoke(command.main, ["--job", "client-1", "--peer", "wse"])
    assert result.exit_code == 1
    assert "no such job" in result.output


def test_only_what_stands_between_the_markers_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{reports.BEGIN}\nold\n{reports.END}\nafter\n", encoding="utf-8")
    monkeypatch.setattr(reports, "PAGE", page)
    monkeypatch.setattr(reports, "_plot", lambda _: None)
    report = Report([run("burst", "wse", 0, 500_000)], TINY)
    for _ in range(2):
        reports.publish(report)
        text = page.read_text(encoding="utf-8")
        assert text == (f"before\n{reports.BEGIN}\n\n{report.markdown()}\n\n{reports.END}\nafter\n")


def test_the_page_shows_the_figures_of_its_file() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shown = page.partition(reports.BEGIN)[2].partition(reports.END)[0].strip()
    assert shown == Report.load(reports.RESULTS / "published.json").markdown()


def test_jobs_peers_targets_and_plots_fit_together() -> None:
    for job in JOBS.values():
        assert set(job.peers) <= set(PEERS)
        assert job.figure in {*FIGURES, ""}
    for target in TARGETS:
        assert target.peer in JOBS[target.job].peers
        assert target.to is None or target.to in JOBS[target.to_job or target.job].peers
        assert target.least is not None or target.aim is not None


# -- what things cost, counted ---------------------------------------------------------------------


class Seat:
    """A device on a carrier without sockets: what comes is counted, not sent."""

    def __init__(self, server: WseServer[Any], identity: str) -> None:
        self.stream = FakeStream()
        transport = StreamTransport(self.stream, Side.SERVER, server.limits, [])
        opened = Handshake(path="/", opened=asyncio.get_running_loop().time())
        server.acceptor.open(transport, opened, "wse-default-json")
        self.stream.feed(say(["~wse:hi", {"identity": identity}]))


class Counting(WseJSON):
    """Counts what is packed."""

    packed = 0

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        self.packed += 1
        return super().pack(type, payload, stamp)


def make_server(protocol: WseJSON | None = None) -> WseServer[Any]:
    server: WseServer[Any] = WseServer(
        lambda attempt: attempt.accept(attempt.identity), protocols=[protocol or WseJSON()]
    )
    server._hub.bind()

    @server.register("plain")
    def plain(_: WseConnection, payload: Any) -> Any:
        return payload

    @server.register("async")
    async def without_waiting(_: WseConnection, payload: Any) -> Any:
        return payload

    return server


async def seats(server: WseServer[Any], number: int) -> list[Seat]:
    here = len(server.clients)
    found = [Seat(server, f"u{here + one}") for one in range(number)]
    await testing.settle()
    for seat in found:
        assert b"~wse:welcome" in seat.stream.written
        seat.stream.writes.clear()
    return found


async def ask(seat: Seat, name: str, calls: int) -> None:
    """So many calls that come in one read, all answered."""
    seat.stream.feed(say(*([name, {"number": 1, "text": "x"}, "1234567"] for _ in range(calls))))
    await testing.settle()
    assert seat.stream.written.count(b"~wse:response") == calls
    seat.stream.writes.clear()


async def opcodes(story: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """How many instructions of bytecode it takes."""
    counter = [0]
    with counting_opcodes(counter):
        await story()
    return counter[0]


if sys.version_info >= (3, 12):

    @contextmanager
    def counting_opcodes(counter: list[int]) -> Iterator[None]:
        monitoring = sys.monitoring
        tool, event = monitoring.PROFILER_ID, monitoring.events.INSTRUCTION

        def one_more(_code: CodeType, _offset: int) -> None:
            counter[0] += 1

        monitoring.use_tool_id(tool, "opcodes")
        monitoring.register_callback(tool, event, one_more)
        monitoring.set_events(tool, event)
        try:
            yield
        finally:
            monitoring.set_events(tool, 0)
            monitoring.free_tool_id(tool)

else:

    @contextmanager
    def counting_opcodes(counter: list[int]) -> Iterator[None]:
        def tracer(frame: FrameType, event: str, _: Any) -> Any:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            counter[0] += event == "opcode"
            return tracer

        before = sys.gettrace()
        sys.settrace(tracer)
        try:
            yield
        finally:
            sys.settrace(before)


@testing.virtual_time
async def test_the_answers_of_one_read_leave_in_one_write() -> None:
    (seat,) = await seats(make_server(), 1)
    seat.stream.feed(say(*(["plain", number, str(number)] for number in range(16))))
    await testing.settle()
    assert len(seat.stream.writes) == 1
    assert seat.stream.written.count(b"~wse:response") == 16


@testing.virtual_time
async def test_a_burst_of_broadcasts_is_packed_once_each_and_written_once_for_each_device() -> None:
    protocol = Counting()
    server = make_server(protocol)
    devices = await seats(server, 100)
    protocol.packed = 0
    for number in range(10):
        server.broadcast("news", {"number": number})
    await testing.settle()
    assert protocol.packed == 10
    assert {len(seat.stream.writes) for seat in devices} == {1}
    assert {seat.stream.written.count(b'"news"') for seat in devices} == {10}


@testing.virtual_time
async def test_a_broadcast_is_framed_once_and_the_same_bytes_go_to_every_device() -> None:
    server = make_server()
    devices = await seats(server, 100)
    server.broadcast("news", {"number": 1})
    await testing.settle()
    written = [seat.stream.writes for seat in devices]
    assert len({id(frame) for (frame,) in written}) == 1


@pytest.mark.parametrize(
    ("name", "most"), [("plain", 900), ("async", 1000 if sys.version_info >= (3, 12) else 1400)]
)
@testing.virtual_time
async def test_a_call_takes_so_many_instructions_at_most(name: str, most: int) -> None:
    (seat,) = await seats(make_server(), 1)
    await ask(seat, name, 64)
    few = await opcodes(lambda: ask(seat, name, 16))
    many = await opcodes(lambda: ask(seat, name, 48))
    each = (many - few) / 32
    assert 0 < each <= most


@testing.virtual_time
async def test_a_delivery_takes_so_many_instructions_at_most() -> None:
    server = make_server()

    async def broadcast() -> None:
        server.broadcast("news", {"number": 1})
        await testing.settle()

    await seats(server, 100)
    await broadcast()
    few = await opcodes(broadcast)
    await seats(server, 200)
    many = await opcodes(broadcast)
    assert 0 < (many - few) / 200 <= 420


@pytest.mark.parametrize("name", ["plain", "async"])
@testing.virtual_time
async def test_calls_leave_nothing_behind(name: str) -> None:
    (seat,) = await seats(make_server(), 1)
    for _ in range(3):
        await ask(seat, name, 100)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(10):
        await ask(seat, name, 100)
    gc.collect()
    assert sys.getallocatedblocks() - before < 100


@real_time
async def test_a_device_that_has_gone_leaves_nothing_for_the_collector() -> None:
    server, gone = make_server(), asyncio.Event()
    spoken = [Subprotocol(WseJSON.name)]
    server.when.left(lambda *_: gone.set())
    async with server.listen(port=0) as listener:
        gc.collect()
        before = Counter(type(one) for one in gc.get_objects())
        gc.disable()
        try:
            for number in range(10):
                async with connect(f"ws://127.0.0.1:{listener.port}", subprotocols=spoken) as ws:
                    await ws.send(json.dumps(["~wse:hi", {"identity": number}]))
                    assert "welcome" in str(await ws.recv())
                await gone.wait()
                gone.clear()
            for transport in tuple(listener.open):
                await transport.wait_closed()
            left = Counter(type(one) for one in gc.get_objects())
        finally:
            gc.enable()
    ours = (WseConnection, WseIdentity, StreamTransport, Lane, Desk)
    assert [left[kind] for kind in ours] == [before[kind] for kind in ours]


@testing.virtual_time
async def test_an_idle_device_holds_so_many_bytes_at_most() -> None:
    server = make_server()
    kept = await seats(server, 20)
    gc.collect()
    tracemalloc.start()
    try:
        kept += [Seat(server, f"more {one}") for one in range(200)]
        await testing.settle()
        gc.collect()
        traces = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=True, filename_pattern=f"{Path(wse.__file__).parent}/*")]
        )
    finally:
        tracemalloc.stop()
    held = sum(one.size for one in traces.statistics("filename")) / 200
    assert 0 < held <= 3600
