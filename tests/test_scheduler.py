"""The queue: its bound holds, it is served first come, first served, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from tests.support import asynchronous
from xai_demo.errors import CancelledError
from xai_demo.scheduler import Jobs, TaskQueue, run_in_queue

_LONG_S = 10.0


def wait_until(condition) -> None:
    end = time.monotonic() + _LONG_S
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.001)


def waiting(queue: TaskQueue) -> int:
    return len(queue._waiting)


def test_never_more_than_the_capacity_at_once_and_every_task_runs():
    queue, now, most, done = TaskQueue(2), [], [], []

    def work(i: int) -> None:
        with queue.slot():
            now.append(i)
            most.append(len(now))
            time.sleep(0.002)
            now.remove(i)
        done.append(i)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert max(most) == 2
    assert sorted(done) == list(range(40))
    assert queue.n_busy == 0


def queued(queue: TaskQueue, names: str, order: list[str], **how) -> list[threading.Thread]:
    """Threads that wait for a slot, in this order."""
    threads = []
    for name in names:

        def work(name: str = name) -> None:
            with queue.slot(**how):
                order.append(name)

        threads.append(threading.Thread(target=work))
        before = waiting(queue)
        threads[-1].start()
        wait_until(lambda before=before: waiting(queue) == before + 1)
    return threads


def test_first_come_first_served():
    queue, order = TaskQueue(1), []
    with queue.slot():
        threads = queued(queue, "abcd", order)
        assert order == []
    for thread in threads:
        thread.join(_LONG_S)
    assert order == ["a", "b", "c", "d"]


def test_a_task_that_steps_aside_lets_another_run_and_is_next():
    queue, order = TaskQueue(1), []
    with queue.slot():
        threads = queued(queue, "a", order)
        with queue.step_aside():
            wait_until(lambda: order == ["a"])
            assert queue.n_busy == 0
        order.append("mine")
        threads += queued(queue, "b", order)
        assert order == ["a", "mine"]
    for thread in threads:
        thread.join(_LONG_S)
    assert order == ["a", "mine", "b"]


def test_a_thread_with_a_slot_needs_no_second_and_stepping_aside_without_one_does_nothing():
    queue = TaskQueue(1)
    with queue.step_aside():
        assert queue.n_busy == 0
    with queue.slot(), queue.slot():
        assert queue.n_busy == 1
    assert queue.n_busy == 0


def test_an_error_frees_the_slot():
    queue, ended = TaskQueue(1, after_each=lambda: ended.append(queue.n_busy)), []
    with pytest.raises(ValueError, match="mine"), queue.slot():
        raise ValueError("mine")
    assert ended == [1]  # before the slot is passed on
    assert queue.n_busy == 0


def test_a_waiting_task_reports_how_many_are_ahead_and_can_be_cancelled():
    queue, messages = TaskQueue(1), []
    with queue.slot():
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:

            def wait() -> None:
                with queue.slot(
                    progress=lambda d, what: messages.append(what), cancelled=stop.is_set
                ):
                    pass

            future = pool.submit(wait)
            wait_until(lambda: messages)
            stop.set()
            with pytest.raises(CancelledError):
                future.result(_LONG_S)
        assert messages == ["Waiting: 1 ahead in the queue"]
        assert waiting(queue) == 0
        assert queue.n_busy == 1
    assert queue.n_busy == 0


def test_a_method_run_in_the_queue_keeps_its_result_and_name():
    class Worker:
        def __init__(self) -> None:
            self.engine = SimpleNamespace(queue=TaskQueue(1))

        @run_in_queue
        def work(self, value: int, *, progress=None) -> tuple[int, int]:
            """Say it."""
            return value, self.engine.queue.n_busy

    worker = Worker()
    assert worker.work(3) == (3, 1)
    assert worker.work.__name__ == "work"
    assert worker.engine.queue.n_busy == 0


def test_tasks_run_on_a_few_threads_in_the_context_of_the_caller():
    queue, caller = TaskQueue(2), contextvars.ContextVar("caller", default=0)

    def ask(number: int) -> tuple[int, int]:
        caller.set(number)
        return queue.run(lambda: (caller.get(), threading.get_ident()))

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(ask, range(40)))
    assert [number for number, _ in answers] == list(range(40))
    assert len({thread for _, thread in answers}) <= 2
    assert queue.n_busy == 0


def test_an_error_in_a_task_reaches_the_caller_and_frees_the_slot():
    queue = TaskQueue(1)
    with pytest.raises(ZeroDivisionError):
        queue.run(lambda: 1 / 0)
    assert queue.run(lambda: queue.run(lambda: "inside")) == "inside"
    assert queue.n_busy == 0


def test_the_same_job_twice_is_done_once_and_a_newer_one_stops_it():
    jobs, done = Jobs(), []

    def work(name: str, is_stopped) -> str:
        wait_until(lambda: is_stopped() or name == "newer")
        done.append(name)
        return name

    async def press() -> list[str | None]:
        first = asyncio.create_task(
            jobs.run_once("a visitor", "a tab", "a.wav", "key", lambda stop: work("first", stop))
        )
        while not jobs.is_running("a visitor", "a tab"):
            await asyncio.sleep(0.001)
        again = await jobs.run_once("a visitor", "a tab", "a.wav", "key", lambda stop: "again")
        newer = await jobs.run_once(
            "a visitor", "a tab", "a.wav", "another key", lambda stop: work("newer", stop)
        )
        return [again, newer, await first]

    assert asynchronous.run(press()) == [None, "newer", "first"]
    assert sorted(done) == ["first", "newer"]
    assert len(jobs) == 0


def test_another_file_stops_what_the_last_one_waits_for_and_no_job_of_its_own():
    jobs = Jobs()

    async def about(subject: str) -> bool:
        async def look() -> bool:
            await asyncio.sleep(0)
            return jobs.is_running("a visitor", "a tab")

        running = asyncio.create_task(
            jobs.run_once("a visitor", "a tab", subject, 1, lambda stop: wait_until(stop))
        )
        while not await look():
            pass
        assert not jobs.stop_others("a visitor", "a tab", subject)
        assert jobs.is_running("a visitor", "a tab")
        is_foreign = jobs.stop_others("a visitor", "a tab", "another.wav")
        await running
        return is_foreign

    assert asynchronous.run(about("a.wav"))
    jobs.forget("a visitor")
    assert jobs.stop_others("a visitor", "a tab", "a.wav")
