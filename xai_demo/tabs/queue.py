"""The queue of the page's requests: a turn for everybody, and none for those who have left.

Gradio's own queue is one line of requests, first come, first served, whoever sends them. This one
has lanes, so that slow and endless requests never stand in the way of quick ones, bounds for each
visitor and each address, and it notices who no longer listens.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import gradio as gr
from fastapi import HTTPException, Request
from gradio.block_function import BlockFunction
from gradio.data_classes import PredictBodyInternal
from gradio.queueing import Event, EventQueue, Queue
from gradio.server_messages import EventMessage, ProcessCompletedMessage
from gradio.utils import run_coro_in_background

from xai_demo.explainers import EXPLAINERS
from xai_demo.service.logs import bind_request, log_refusal, log_wait
from xai_demo.service.policy import clean_message
from xai_demo.service.visitors import Listeners, visitor_network

# Jobs of one visitor that wait or run, in all lanes together.
_MAX_JOBS = 3
# Who does not listen for this long has left; between asking and listening a moment passes.
_LEFT_S = 4.0
# A live stream without a new chunk for this long is over.
_SILENT_S = 4.5
_LOOK_EVERY_S = 0.5
# An answer that nobody has fetched is kept for this long.
_KEEP_ANSWER_S = 60.0
# A job that does not notice its own deadline.
_OVERDUE_S = 30.0
# A sound of this size takes seconds to analyse: four minutes of MP3, 45 seconds of WAV.
_LARGE_SOUND_BYTES = 4_000_000
# Gradio looks for work a thousand times a second, which takes time from the answers.
_POLL_S = 0.005
_SLOW = {name for name, explainer in EXPLAINERS.items() if explainer.passes > 1}
_MAX_TEXT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A kind of request with bounds of its own."""

    running: int  # at the same time
    most: int  # that wait or run
    per_address: int
    # Beyond these, the requests of one address let others go first.
    share: int


def lanes(max_queued: int) -> dict[str, Lane]:
    """Return the lanes by the concurrency ids of the page's events.

    One address may fill the lane of the quick answers but for an eighth, since many visitors can
    share it; the slow ones run one at a time, so a quick one never waits for two of them.
    """
    answers = Lane(running=6, most=max_queued, per_address=_most_of(max_queued), share=8)
    return {
        "answers": answers,
        "slow": Lane(running=1, most=16, per_address=6, share=2),
        "previews": Lane(running=1, most=32, per_address=24, share=4),
        "live": Lane(running=8, most=8, per_address=4, share=8),
        "other": Lane(running=4, most=32, per_address=16, share=8),
    }


def _most_of(max_queued: int) -> int:
    return max(1, max_queued - max_queued // 8)


@dataclass(slots=True)
class _Job:
    """What is known of an event beyond what Gradio knows."""

    event: Event
    lane: str
    visitor: str
    network: str
    task: asyncio.Task[Any] | None = None
    began_at: float = 0.0
    # Of a live stream: what was seen last, and since when it has been waiting for a chunk.
    run_time: float = 0.0
    chunk: Any = None
    waiting_since: float | None = None

    @property
    def is_running(self) -> bool:
        return self.began_at > 0


class VisitorQueue(Queue):
    """Gradio's queue with lanes, bounds for each visitor, and an eye on who has left."""

    def __init__(
        self, page: gr.Blocks, *, max_queued: int, request_s: float, listeners: Listeners
    ) -> None:
        super().__init__(
            live_updates=True,
            concurrency_count=page.max_threads,
            update_intervals=1,
            max_size=None,
            blocks=page,
            default_concurrency_limit=lanes(max_queued)["other"].running,
        )
        self.lanes = lanes(max_queued)
        self._request_s, self._listeners = request_s, listeners
        self._jobs: dict[str, _Job] = {}
        # Since when a session's messages have had nothing to wait for.
        self._idle_since: dict[str, float] = {}
        self.sleep_when_free = _POLL_S
        # Gradio would keep a row of each of the last ten thousand events, and sum them up again
        # after each event.
        self.ANALYTICS_MAX_EVENTS = 1

    def compute_analytics_summary(self, records: Any) -> Any:
        """Compute nothing: `service.health` has the metrics."""
        return self.cached_event_analytics_summary

    def start(self) -> None:
        """Start to work, and to look who has left."""
        cast(Any, super()).start()
        run_coro_in_background(self._watch)

    def n_jobs(self, lane: str | None = None) -> int:
        """Return how many jobs wait or run, in a lane or in all but the live ones."""
        return sum(
            job.lane == lane if lane else job.lane != "live" for job in list(self._jobs.values())
        )

    def is_full(self) -> bool:
        """Whether a new visitor would be turned away."""
        return self.n_jobs("answers") >= self.lanes["answers"].most

    def end_streams(self) -> None:
        """End all live streams: the server shuts down. For any thread."""
        for job in list(self._jobs.values()):
            if job.lane == "live":
                _end_stream(job.event)

    async def push(self, body: PredictBodyInternal, request: Request, username: str | None) -> Any:
        """Take a request in, or raise HTTPException with the place in the queue."""
        fn = self.blocks.fns.get(body.fn_index if body.fn_index is not None else -1)
        if fn is None:
            raise HTTPException(400, "There is no such event on this page.")
        lane = self._lane_of(fn, body.data)
        network = visitor_network(request.client.host if request.client else "unknown")
        visitor = body.session_hash or f"address {network}"
        # Before anything is kept for this request, and again below: others come in between.
        self._check(lane, visitor, network)
        is_taken, event_id, state = await super().push(body, request, username)
        event = self.event_ids_to_events.get(event_id) if isinstance(event_id, str) else None
        if not is_taken or event is None:
            return is_taken, event_id, state
        try:
            self._check(lane, visitor, network)
        except HTTPException:
            self._forget(event)
            raise
        job = _Job(event, lane, visitor, network, chunk=event.data)
        self._make_way(job)
        self._jobs[event._id] = job
        self._move(event, lane)
        return is_taken, event_id, state

    def create_event_queue_for_fn(self, block_fn: BlockFunction) -> None:
        """Make a line for the events of a function: that of its lane if it has one."""
        lane = block_fn.concurrency_id
        if lane in self.lanes and lane not in self.event_queue_per_concurrency_id:
            line = EventQueue(lane, self.lanes[lane].running)
            self.event_queue_per_concurrency_id[lane] = line
        elif lane not in self.lanes:
            super().create_event_queue_for_fn(block_fn)

    def get_events(self) -> tuple[list[Event], bool, str] | None:
        """Return the events whose turn it is."""
        for queue in self.event_queue_per_concurrency_id.values():
            limit = queue.concurrency_limit
            if len(queue.queue) > 1 and (limit is None or queue.current_concurrency < limit):
                queue.queue[:] = self._in_order(queue.queue)
        return super().get_events()

    async def process_events(
        self, events: list[Event], batch: bool, begin_time: float, fn: BlockFunction
    ) -> None:
        """Do the work of an event, and forget it afterwards."""
        for event in events:
            if job := self._jobs.get(event._id):
                job.task, job.began_at = asyncio.current_task(), time.monotonic()
                with bind_request(event.request.headers.get("x-request-id")):
                    log_wait(job.lane, job.began_at - event.enqueue_time)
        try:
            await super().process_events(events, batch, begin_time, fn)
        finally:
            for event in events:
                self._jobs.pop(event._id, None)

    def send_message(self, event: Event, event_message: EventMessage) -> None:
        """Send a message; errors of Gradio's lose paths and what a visitor sent at length."""
        if isinstance(event_message, ProcessCompletedMessage) and not event_message.success:
            text = event_message.output.get("error")
            if isinstance(text, str):
                event_message.output["error"] = clean_message(text, most=_MAX_TEXT)
        super().send_message(event, event_message)

    def _lane_of(self, fn: BlockFunction, data: list[Any]) -> str:
        lane = fn.concurrency_id if fn.concurrency_id in self.lanes else "other"
        if fn.connection == "stream":
            return "live"
        is_slow = lane == "answers" and (
            any(isinstance(each, str) and each in _SLOW for each in data)
            or any(map(_is_large_sound, fn.inputs, data))
        )
        return "slow" if is_slow else lane

    def _check(self, lane: str, visitor: str, network: str) -> None:
        jobs = list(self._jobs.values())
        bounds, here = self.lanes[lane], [job for job in jobs if job.lane == lane]
        own = [job for job in jobs if job.visitor == visitor and job.lane != "live"]
        near = sum(job.network == network for job in here)
        # A second stream or preview replaces the first.
        replaces = lane in ("live", "previews") and any(job.visitor == visitor for job in here)
        if replaces:
            return
        if len(own) >= _MAX_JOBS:
            raise _busy(
                f"You have {len(own)} requests in the queue, the first at place "
                f"{self._place(own[0])}; {_MAX_JOBS} are allowed at a time. Please wait for one of "
                "them."
            )
        if near >= bounds.per_address:
            raise _busy(
                f"The demo is busy: {near} requests from your address are in the queue, which is "
                "the most that is allowed. Please try again in a minute."
            )
        if len(here) >= bounds.most:
            raise _busy(
                f"The demo is busy: {len(here)} requests are in the queue, yours would be number "
                f"{len(here) + 1}. Please try again in a minute."
            )

    def _place(self, job: _Job) -> int:
        line = [each for each in self._jobs.values() if each.lane == job.lane]
        return 1 + line.index(job)

    def _make_way(self, job: _Job) -> None:
        """End the older streams of a visitor, and drop older previews that still wait."""
        for other in [each for each in self._jobs.values() if each.visitor == job.visitor]:
            if other.lane != job.lane:
                continue
            if job.lane == "live":
                _end_stream(other.event)
            elif job.lane == "previews" and not other.is_running:
                self._complete(other.event, {}, success=True)
                self._forget(other.event)

    def _move(self, event: Event, lane: str) -> None:
        """Put an event that Gradio has just taken in at the end of its lane."""
        if event.concurrency_id == lane:
            return
        old = self.event_queue_per_concurrency_id[event.concurrency_id]
        event.concurrency_id = lane
        old.queue.remove(event)
        line = EventQueue(lane, self.lanes[lane].running)
        self.event_queue_per_concurrency_id.setdefault(lane, line).queue.append(event)

    def _in_order(self, events: list[Event]) -> list[Event]:
        """Return waiting events in the order of their turns.

        Everybody's first request goes before anybody's second, and beyond a share of the lane the
        requests of one address let those of others pass. Otherwise first come, first served.
        """
        running = [job for job in self._jobs.values() if job.is_running]
        of_visitor = Counter((job.lane, job.visitor) for job in running)
        of_network: Counter[tuple[str, str]] = Counter()
        ranked = []
        for event in sorted(events, key=lambda each: each.enqueue_time):
            job = self._jobs.get(event._id)
            if job is None:
                ranked.append(((0, 0, event.enqueue_time), event))
                continue
            visitor, network = (job.lane, job.visitor), (job.lane, job.network)
            group = of_network[network] // self.lanes[job.lane].share
            ranked.append(((of_visitor[visitor], group, event.enqueue_time), event))
            of_visitor[visitor] += 1
            of_network[network] += 1
        return [event for _, event in sorted(ranked, key=lambda pair: pair[0])]

    async def _watch(self) -> None:
        """Twice a second, end what nobody listens for, silent streams, and what is late."""
        while not self.stopped:
            began = time.monotonic()
            await asyncio.sleep(_LOOK_EVERY_S)
            # The server itself was held up: whoever came meanwhile has not been heard yet.
            if time.monotonic() - began > 2 * _LOOK_EVERY_S:
                continue
            for job in list(self._jobs.values()):
                self._look_at(job)
            self._drop_old_answers()

    def _look_at(self, job: _Job) -> None:
        event, now = job.event, time.monotonic()
        keys = (event.session_hash, event._id)
        if self._listeners.silence_s(keys, since=event.enqueue_time) > _LEFT_S:
            log_refusal("client left", lane=job.lane)
            self._stop(job, "Nobody was listening for this answer, so it was not made.")
        elif event.streaming and job.is_running:
            _look_at_stream(job, now)
        elif job.is_running and now - job.began_at > self._request_s + _OVERDUE_S:
            log_refusal("overdue", lane=job.lane)
            self._stop(
                job, f"This took longer than the {self._request_s:g} seconds that are allowed."
            )

    def _stop(self, job: _Job, reason: str) -> None:
        """Take an event out of the queue, or cancel its work."""
        self._complete(job.event, {"error": reason}, success=False)
        if job.task is not None:
            # The thread that works notices it through `scheduler.Jobs`.
            job.task.cancel()
        else:
            self._forget(job.event)

    def _complete(self, event: Event, output: dict[str, Any], *, success: bool) -> None:
        if event.session_hash in self.pending_messages_per_session:
            self.send_message(event, ProcessCompletedMessage(output=output, success=success))

    def _forget(self, event: Event) -> None:
        """Take an event that waits out of the queue, without a trace."""
        line = self.event_queue_per_concurrency_id[event.concurrency_id]
        with suppress(ValueError):
            line.queue.remove(event)
        self.event_ids_to_events.pop(event._id, None)
        self._jobs.pop(event._id, None)
        pending = self.pending_event_ids_session.get(event.session_hash, set())
        pending.discard(event._id)

    def _drop_old_answers(self) -> None:
        """Drop messages of visitors who have left; they may hold whole answers."""
        busy = {job.event.session_hash for job in self._jobs.values()}
        began = time.monotonic()
        for session in list(self.pending_messages_per_session):
            if session in busy:
                self._idle_since.pop(session, None)
                continue
            since = self._idle_since.setdefault(session, began)
            keys = (session, *self.pending_event_ids_session.get(session, ()))
            if self._listeners.silence_s(keys, since=since) > _KEEP_ANSWER_S:
                self.pending_messages_per_session.pop(session, None)
                self.pending_event_ids_session.pop(session, None)
                self._idle_since.pop(session, None)


def _look_at_stream(job: _Job, now: float) -> None:
    """End a live stream if its visitor has sent no new chunk since the last answer."""
    event = job.event
    if event.run_time != job.run_time:
        job.run_time, job.chunk, job.waiting_since = event.run_time, event.data, now
    elif event.data is not job.chunk:
        # A chunk has come, and is being answered.
        job.chunk, job.waiting_since = event.data, None
    if job.waiting_since is not None and now - job.waiting_since > _SILENT_S:
        log_refusal("silent stream")
        _end_stream(event)


def _end_stream(event: Event) -> None:
    # As Gradio does when the page closes the stream.
    event.run_time, event.closed = math.inf, True
    event.signal.set()


def _busy(message: str) -> HTTPException:
    log_refusal("busy")
    # Not 503: the page would show a text of Gradio's in place of this one.
    return HTTPException(429, message, headers={"Retry-After": "30"})


def _is_large_sound(block: Any, value: Any) -> bool:
    if not isinstance(block, gr.Audio) or not isinstance(value, dict):
        return False
    try:
        return os.path.getsize(str(value.get("path"))) > _LARGE_SOUND_BYTES
    except (OSError, ValueError):
        return False
