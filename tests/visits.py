"""A model of visits: what may be told of them, in which order, and what must be true at rest.

A visit is one attempt to connect, and the connection that comes of it. What the application is
told and does goes into a log as it happens; going through that, `Visits` learns where each stands.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from hypothesis import note

from wse import ConnectError, HandlerFailed, MessageUnreadable, Status, WseServer, testing
from wse.transports.memory import MemoryTransport

SEATS = 2
HANDLERS = 3
"""At work for one device at once."""

FOR_EVER = -1
"""As many turns of the loop as it takes to be released, or cancelled."""

End = tuple[int, str]

TORN = (1006, "")
REFUSED = (1000, "wse.not-authorized")
EVICTED = (1000, "wse.clients-concurrency")
VIOLATION = (1000, "wse.protocol-error")
BY_CLIENT = (1000, "wse.by-client")
LEFT = (1000, "left")
JUMPED = (4000, "jump")
BANNED = (1000, "banned")
PLOTTED = (1000, "plotted")
SENT_AWAY = (1000, "sent away")
CLOSING = (1012, "wse.server-closing")
SLOW = (1013, "wse.slow-consumer")
LATE = (1013, "wse.authentication-timeout")

SAID_BY_A_CLIENT = (BY_CLIENT, LEFT, JUMPED)
"""What was said before these ends is heard before them."""
SAID_BY_THE_SERVER = (EVICTED, VIOLATION, BANNED, PLOTTED, SENT_AWAY, CLOSING)


class Stage(Enum):
    NEW = auto()
    OPEN = auto()
    """A client's WebSocket, before the welcome."""
    READY = auto()
    CLOSED = auto()


@dataclass(frozen=True)
class Plan:
    """How a visit goes, on either side, when nothing comes in between. Times are turns."""

    cid: str
    is_known: bool = True
    quests: int = 0
    answers: str = "rightly"
    pauses: int = 0
    """Until the client knows its identity."""
    thinks: int = 0
    """Before each step of the server's."""
    solves: int = 0
    """Until a quest is solved."""
    is_stubborn: bool = False
    """Whether `identify` decides though it was cancelled."""

    @property
    def is_welcome(self) -> bool:
        return self.is_known and (not self.quests or self.answers == "rightly")


@dataclass(eq=False)
class Side:
    """One end of a visit. Messages are known by their numbers."""

    visit: Visit
    name: str
    stage: Stage = Stage.NEW
    sent: list[int] = field(default_factory=list)
    """What the other side sent to handlers, in order."""
    sent_in_vain: list[int] = field(default_factory=list)
    """What it sent though nobody handles it, in order."""
    started: list[int] = field(default_factory=list)
    """What handlers were started for."""
    ignored: list[int] = field(default_factory=list)
    at_work: dict[int, str] = field(default_factory=dict)
    """What asynchronous handlers are at work for, and its type."""
    spared: set[int] = field(default_factory=set)
    """What the handlers were started for that ended their own connection, and go on."""

    def __repr__(self) -> str:
        return f"{self.name} of visit {self.visit.number}"

    @property
    def has_heard_all(self) -> bool:
        return self.started == self.sent and self.ignored == self.sent_in_vain

    @property
    def may_be_deaf(self) -> bool:
        return self is self.visit.server and self.visit.may_leave

    def is_sent(self, type: str, number: int) -> None:
        (self.sent_in_vain if type == "unknown" else self.sent).append(number)

    def enters(self, stage: Stage, *before: Stage) -> None:
        assert self.stage in before
        self.stage = stage


class Visitor:
    """A device, and how its next visit goes."""

    def __init__(self, number: int, device: testing.Device, plan: Plan) -> None:
        self.number = number
        self.device = device
        self.client = device.client
        self.plan = plan
        self.visit: Visit | None = None
        """The newest."""
        self.status = Status.IDLE

    def __repr__(self) -> str:
        return f"visitor {self.number}"


class Visit:
    """One attempt to connect, and the connection that comes of it."""

    def __init__(self, number: int, visitor: Visitor) -> None:
        self.number = number
        self.visitor = visitor
        self.plan = visitor.plan
        self.client = Side(self, "client")
        self.server = Side(self, "server")
        self.sides = (self.client, self.server)
        self.is_identified = False
        self.may_leave = False
        """Whether the server may hear nothing new of it, because it drains."""
        self.transport: MemoryTransport | None = None
        """The client's end."""
        self.causes: set[End] = set() if self.plan.is_welcome else {REFUSED}
        """The ends that it may have."""

    def __repr__(self) -> str:
        return f"visit {self.number} of {self.visitor}"

    @property
    def is_stalled(self) -> bool:
        return self.transport is not None and self.transport.stalled


class Visits:
    """All of them, and the log of what was told of them."""

    def __init__(self) -> None:
        self.all: list[Visit] = []
        self.here: dict[str, list[Visit]] = {}
        """Those of each user that are accepted and have not ended, the oldest first."""
        self.waiting: dict[int, tuple[Side, Side]] = {}
        """The calls that wait for an answer: caller and callee of each."""
        self.raised = 0
        """How many exceptions of the application's own must be reported."""
        self._reported = 0
        self._log: list[tuple[Any, ...]] = []
        self._learnt = 0
        self._last_end: dict[str, End] = {}

    def new(self, visitor: Visitor) -> Visit:
        visit = visitor.visit = Visit(len(self.all), visitor)
        self.all.append(visit)
        return visit

    @property
    def connected(self) -> list[Visit]:
        """Those whose client has a connection."""
        return [visit for visit in self.all if visit.client.stage in (Stage.OPEN, Stage.READY)]

    def tell(self, *entry: Any) -> None:
        """Remember what happens; it is judged later, where no handler's failure hides that."""
        self._log.append(entry)

    # -- at every turn -----------------------------------------------------------------------

    def learn(self) -> None:
        """Judge what was told since the last time, in its order."""
        for entry in self._log[self._learnt :]:
            note(" ".join(map(str, entry)))
            self._judge(*entry)
        self._learnt = len(self._log)

    def _judge(self, *entry: Any) -> None:
        match entry:
            case "identify", visit:
                assert not visit.is_identified
                visit.is_identified = True
            case "joined", cid:
                assert cid not in self.here
                self.here[cid] = []
            case "connected", visit, seats:
                self._connected(visit, seats)
            case "disconnected", visit, end:
                self._disconnected(visit, end)
            case "left", cid, end:
                assert self.here.pop(cid) == []
                assert self._last_end[cid] == end
            case "error", kind, details, visit:
                self._error(kind, details, visit)
            case "all gone", visits:
                assert all(visit.server.stage in (Stage.NEW, Stage.CLOSED) for visit in visits)
            case (("opened" | "ready" | "closed" | "updated" | "gone"), *_):
                _judge_client(*entry)
            case _:
                _judge_handling(*entry)

    def _connected(self, visit: Visit, seats: int) -> None:
        assert visit.plan.is_welcome
        visit.server.enters(Stage.READY, Stage.NEW)
        present = self.here[visit.plan.cid]
        present.append(visit)
        assert max(seats, len(present)) <= SEATS

    def _disconnected(self, visit: Visit, end: End) -> None:
        visit.server.enters(Stage.CLOSED, Stage.READY)
        present = self.here[visit.plan.cid]
        if end == EVICTED:
            assert len(present) == SEATS
            assert present[0] is visit
            visit.causes.add(EVICTED)
        _judge_end(visit.server, end, SAID_BY_A_CLIENT)
        present.remove(visit)
        self._last_end[visit.plan.cid] = end

    def _error(self, kind: type[Exception], details: Any, visit: Visit | None) -> None:
        if kind is HandlerFailed:
            self._reported += details.get("event") != "connect"  # a solver's, as it comes back
        elif visit is None:
            assert issubclass(kind, ConnectError)
        else:
            assert kind is MessageUnreadable
            assert visit.server.stage is not Stage.CLOSED
            assert VIOLATION in visit.causes

    # -- at rest -----------------------------------------------------------------------------

    def check_at_rest(self, server: WseServer[Any]) -> None:
        """Nothing happens any more: whatever has not come to its end has a reason."""
        self._check_who_is_here(server)
        for visit in self.all:
            for side in visit.sides:
                if side.stage is not Stage.READY:
                    assert not side.at_work
                elif side is visit.server or not visit.is_stalled:
                    assert side.at_work or side.has_heard_all or side.may_be_deaf
        for caller, callee in self.waiting.values():
            assert caller.stage is Stage.READY
            is_busy = callee.at_work or caller.at_work
            assert caller.visit.is_stalled or is_busy or callee.may_be_deaf
        assert self._reported == self.raised

    def _check_who_is_here(self, server: WseServer[Any]) -> None:
        """Both ends agree, and so does the server's register."""
        numbers = {cid: [visit.number for visit in here] for cid, here in self.here.items()}
        assert numbers == {
            cid: [conn.state for conn in client.conns.values()]
            for cid, client in server.clients.items()
        }
        strangers = len(server.acceptor.strangers)
        for visit in self.all:
            here, there = visit.server.stage, visit.client.stage
            if there is Stage.OPEN:
                strangers -= here is Stage.NEW and not visit.is_stalled
            elif not visit.is_stalled:  # a full inbox keeps the server from reading the end
                agree = (here is Stage.READY) is (there is Stage.READY)
                assert agree or (there is Stage.CLOSED and visit.server.at_work)
        assert 0 <= strangers <= sum(visit.is_stalled for visit in self.connected)


def _judge_end(side: Side, end: End, said: tuple[End, ...]) -> None:
    visit = side.visit
    assert end in visit.causes
    too_slow = side is visit.client and SLOW in visit.causes
    is_excused = too_slow or side.at_work or side.may_be_deaf
    assert end not in said or is_excused or side.has_heard_all


def _judge_client(*entry: Any) -> None:
    match entry:
        case "opened", visit:
            visit.client.enters(Stage.OPEN, Stage.NEW)
        case "ready", visit, welcome:
            assert welcome == visit.number
            visit.client.enters(Stage.READY, Stage.OPEN)
        case "closed", visit, end:
            said = SAID_BY_THE_SERVER if visit.client.stage is Stage.READY else ()
            visit.client.enters(Stage.CLOSED, Stage.OPEN, Stage.READY)
            _judge_end(visit.client, end, said)
        case "updated", visitor, status:
            assert status is not visitor.status
            visitor.status = status
        case "gone", visit:
            assert visit.client.stage in (Stage.NEW, Stage.CLOSED)


def _judge_handling(*entry: Any) -> None:
    match entry:
        case "hung up", side:
            assert side.stage is Stage.CLOSED
        case "ignored", side, number:
            assert side.stage is Stage.READY
            side.ignored.append(number)
            assert side.sent_in_vain[len(side.ignored) - 1] == number
        case "started", side, number, *types:
            assert side.stage is Stage.READY
            side.started.append(number)
            assert side.sent[len(side.started) - 1] == number
            for type in types:
                assert type != "ordered" or type not in side.at_work.values()
                side.at_work[number] = type
            assert side is not side.visit.server or len(side.at_work) <= HANDLERS
        case "ends", side, number:
            side.spared.add(number)
        case "stopped", side, number, how:
            del side.at_work[number]
            assert how == "done" or (side.stage is Stage.CLOSED and number not in side.spared)
        case _:
            raise AssertionError(entry)
