"""The handlers of one connection: started in order, answered for, cancelled with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from .codes import ErrorCode
from .deadline import DEADLINE
from .errors import InvalidPayload, WseError, travels
from .handler import EAGER, Handler, start_task
from .inbox import Inbox, Job
from .limits import Limits
from .stages import Stage

if TYPE_CHECKING:
    from .endpoint import Endpoint

__all__ = ["Desk"]


class Desk:
    """Where the messages of one connection are handled.

    It is told each time which connection that is: two that hold each other would have to wait for
    the collector when they are no longer used.
    """

    __slots__ = ("_inbox", "_pumping", "_tasks")

    def __init__(self, limits: Limits) -> None:
        self._inbox = Inbox(limits)
        self._tasks: dict[asyncio.Task[Any], str | None] | None = None
        self._pumping = False

    def __len__(self) -> int:
        """How many messages wait for their handlers."""
        return len(self._inbox)

    @property
    def has_reserve(self) -> bool:
        """Whether it is full, and takes as much again while a call waits."""
        return self._inbox.full and not self._inbox.overfull

    @property
    def is_full(self) -> bool:
        """Whether no more should be read until some were handled."""
        return self._inbox.full

    @property
    def is_idle(self) -> bool:
        """Whether nothing is at work, and nothing waits."""
        return not self._inbox and self._inbox.is_idle

    def take(  # noqa: PLR0917 - the hot path
        self,
        end: Endpoint,
        handler: Handler,
        type: str,
        payload: Any,
        stamp: str | None,
        size: int,
        deadline: float | None = None,
    ) -> None:
        """Handle a message, now or when its turn comes."""
        if end.stage is Stage.CLOSED:
            return
        inbox = self._inbox
        if not inbox.busy or inbox.admits(handler):
            if deadline is DEADLINE.get():
                self._start(end, handler, type, payload, stamp)
            else:
                self._start_within(deadline, end, handler, type, payload, stamp)
            return
        inbox.keep(Job(handler, type, payload, stamp, size, deadline))
        # While a call waits its answer must come, so reading goes on for another inbox's worth.
        if inbox.overfull or (inbox.full and not end._calls):
            end._transport.pause_reading()

    def give_up(self, end: Endpoint, stamp: str) -> None:
        """The caller waits no longer: cancel the handler of this call, if it is not done."""
        if self._inbox.remove(stamp):
            self._pump(end)
            return
        for task, of in (self._tasks or {}).items():
            if of == stamp:
                assert self._tasks is not None
                self._tasks[task] = None
                task.cancel()
                return
        if self._inbox.unstarted:  # it may be among them (Python 3.11)
            asyncio.get_running_loop().call_soon(self.give_up, end, stamp)

    def catch_up(self, end: Endpoint) -> bool:
        """Start what may start; whether all that was started has taken its first step."""
        if not self._inbox.unstarted:
            self._pump(end)
        return not self._inbox.unstarted

    def close(self, end: Endpoint) -> None:
        """Forget what waits and what has not taken its first step, and cancel what is at work."""
        count = len(self._inbox) + self._inbox.unstarted
        if count:
            end._hub.logger.info("%r ended with %d messages not handled", end, count)
        self._inbox.clear()
        if self._tasks:
            spared = asyncio.current_task()
            for task in tuple(self._tasks):
                if task is not spared:
                    task.cancel()

    def fail(
        self, end: Endpoint, type: str, stamp: str | None, code: str, details: Any = None
    ) -> None:
        """Answer a call with an error."""
        if stamp is None:
            return
        try:
            end._emit(end.protocol.failure(stamp, code, details))
        except Exception as unsendable:
            self._crashed(end, type, stamp, unsendable)

    def _start_within(  # noqa: PLR0917 - as `take`
        self,
        deadline: float | None,
        end: Endpoint,
        handler: Handler,
        type: str,
        payload: Any,
        stamp: str | None,
    ) -> None:
        """Start a handler that may ask for how long its caller waits."""
        token = DEADLINE.set(deadline)
        try:
            self._start(end, handler, type, payload, stamp)
        finally:
            DEADLINE.reset(token)

    def _start(
        self, end: Endpoint, handler: Handler, type: str, payload: Any, stamp: str | None
    ) -> None:
        try:
            value = handler.decode(payload, end.protocol)
        except InvalidPayload as error:
            self._unfit(end, type, stamp, error)
            return
        try:
            outcome = handler.function(end, value) if end.gives_itself else handler.function(value)
        except (Exception, asyncio.CancelledError) as error:
            self._failed(end, type, stamp, error)
            return
        if not hasattr(outcome.__class__, "__await__"):
            if stamp is not None:
                self._reply(end, type, stamp, outcome)
            return
        self._inbox.begin(handler, started=EAGER)
        assert end._hub.loop is not None
        if not EAGER:
            end._hub.loop.create_task(self._work_later(end, handler, type, outcome, stamp))
            return
        task = start_task(end._hub.loop, self._work(end, handler, type, outcome, stamp))
        if not task.done():
            self._hold(end, task, stamp)
            task.add_done_callback(partial(self._release, end))

    async def _work_later(
        self, end: Endpoint, handler: Handler, type: str, work: Awaitable[Any], stamp: str | None
    ) -> None:
        """`_work` as a task that does not start at once; not at all once the connection has ended.

        It is held from its first step on, and let go here: a callback of the task costs a turn.
        """
        if end.stage is Stage.CLOSED:
            if isinstance(work, Coroutine):
                work.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._hold(end, task, stamp)
        self._inbox.first_step()
        if self._inbox:
            asyncio.get_running_loop().call_soon(self._pump, end)
        try:
            await self._work(end, handler, type, work, stamp)
        finally:
            self._release(end, task)

    async def _work(
        self, end: Endpoint, handler: Handler, type: str, work: Awaitable[Any], stamp: str | None
    ) -> None:
        try:
            outcome = await work
        except Exception as error:
            self._failed(end, type, stamp, error)
        except asyncio.CancelledError as error:
            if end.stage is not Stage.CLOSED and not self._was_given_up(stamp):
                self._failed(end, type, stamp, error)
            raise
        else:
            if stamp is not None:
                self._reply(end, type, stamp, outcome)
        finally:
            self._inbox.end(handler)
            if self._inbox:
                self._pump(end)
            if end.stage is Stage.LEAVING:
                end._go_if_idle()

    def _was_given_up(self, stamp: str | None) -> bool:
        """Whether the caller of the task at hand waits no longer: its stamp is forgotten."""
        task = asyncio.current_task()
        return (
            stamp is not None
            and self._tasks is not None
            and task is not None
            and self._tasks.get(task, stamp) is None
        )

    def _hold(self, end: Endpoint, task: asyncio.Task[Any], stamp: str | None) -> None:
        if self._tasks is None:
            self._tasks = {}
        self._tasks[task] = stamp
        end._hub.tasks.add(task)

    def _release(self, end: Endpoint, task: asyncio.Task[Any]) -> None:
        end._hub.tasks.discard(task)
        if self._tasks is not None:
            self._tasks.pop(task, None)

    def _pump(self, end: Endpoint) -> None:
        """Start what waits and may start, then read on."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while (job := self._inbox.next()) is not None:
                handler, type, payload, stamp, _, deadline = job
                if deadline is None or deadline > asyncio.get_running_loop().time():
                    self._start_within(deadline, end, handler, type, payload, stamp)
        finally:
            self._pumping = False
        if self._inbox.has_room:
            end._transport.resume_reading()

    def _reply(self, end: Endpoint, type: str, stamp: str, outcome: Any) -> None:
        try:
            end._emit(end.protocol.result(stamp, outcome))
        except Exception as error:
            self._crashed(end, type, stamp, error)

    def _unfit(self, end: Endpoint, type: str, stamp: str | None, error: InvalidPayload) -> None:
        """A payload does not fit its handler."""
        end._hub.logger.info("payload of %r does not fit at %s", type, error.details["path"])
        if stamp is None:
            end._report_error(error)
        else:
            self.fail(end, type, stamp, error.code, error.details)

    def _failed(self, end: Endpoint, type: str, stamp: str | None, error: BaseException) -> None:
        """A handler raised: the application's own errors are an answer, others are not."""
        if stamp is not None and isinstance(error, WseError) and travels(error):
            self.fail(end, type, stamp, error.code, error.details)
        else:
            self._crashed(end, type, stamp, error)

    def _crashed(self, end: Endpoint, type: str, stamp: str | None, error: BaseException) -> None:
        """A caller learns an id of the log."""
        failure = end._hub.failed(f"handler of {type!r}", error, type=type)
        if stamp is not None:
            try:
                details = {"id": failure.details["id"]}
                end._emit(end.protocol.failure(stamp, ErrorCode.RP_EXECUTION_FAILED, details))
            except Exception:
                end._hub.logger.exception("%r cannot pack a failure", end.protocol)
        end._report_error(failure)
