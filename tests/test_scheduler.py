"""Turns: the bound holds, the order is that of coming, and nobody waits for ever."""

from __future__ import annotations

import contextvars
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from xai_demo.errors import CancelledError
from xai_demo.scheduler import TaskQueue, run_in_queue

_LONG_S = 10.0


def until(condition) -> None:
    end = time.monotonic() + _LONG_S
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.001)


def waiting(turns: TaskQueue) -> int:
    return len(turns._waiting)


def test_never_more_at_once_than_said_and_all_get_their_turn():
    turns, now, most, done = TaskQueue(2), [], [], []

    def work(i: int) -> None:
        with turns.one():
            now.append(i)
            most.append(len(now))
            time.sleep(0.002)
            now.remove(i)
        done.append(i)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert max(most) == 2
    assert sorted(done) == list(range(40))
    assert turns.busy == 0


def queued(turns: TaskQueue, names: str, order: list[str], **how) -> list[threading.Thread]:
    """Threads that wait for a turn, in this order."""
    threads = []
    for name in names:

        def work(name: str = name) -> None:
            with turns.one(**how):
                order.append(name)

        threads.append(threading.Thread(target=work))
        before = waiting(turns)
        threads[-1].start()
        until(lambda before=before: waiting(turns) == before + 1)
    return threads


def test_who_came_first_goes_first():
    turns, order = TaskQueue(1), []
    with turns.one():
        threads = queued(turns, "abcd", order)
        assert order == []
    for thread in threads:
        thread.join(_LONG_S)
    assert order == ["a", "b", "c", "d"]


def test_who_steps_aside_lets_another_go_and_is_next():
    turns, order = TaskQueue(1), []
    with turns.one():
        threads = queued(turns, "a", order)
        with turns.aside():
            until(lambda: order == ["a"])
            assert turns.busy == 0
        order.append("mine")
        threads += queued(turns, "b", order)
        assert order == ["a", "mine"]
    for thread in threads:
        thread.join(_LONG_S)
    assert order == ["a", "mine", "b"]


def test_who_has_a_turn_needs_no_second_and_aside_without_one_is_nothing():
    turns = TaskQueue(1)
    with turns.aside():
        assert turns.busy == 0
    with turns.one(), turns.one():
        assert turns.busy == 1
    assert turns.busy == 0


def test_a_fault_gives_the_turn_back():
    turns, ended = TaskQueue(1, after=lambda: ended.append(turns.busy)), []
    with pytest.raises(ValueError, match="mine"), turns.one():
        raise ValueError("mine")
    assert ended == [1]  # before it is handed on
    assert turns.busy == 0


def test_who_waits_is_told_how_many_are_before_and_can_leave():
    turns, told = TaskQueue(1), []
    with turns.one():
        stop = threading.Event()
        with ThreadPoolExecutor(1) as pool:

            def wait() -> None:
                with turns.one(progress=lambda d, what: told.append(what), cancelled=stop.is_set):
                    pass

            future = pool.submit(wait)
            until(lambda: told)
            stop.set()
            with pytest.raises(CancelledError):
                future.result(_LONG_S)
        assert told == ["Waiting: 1 before this one"]
        assert waiting(turns) == 0
        assert turns.busy == 1
    assert turns.busy == 0


def test_a_method_in_turn_keeps_its_answer_and_name():
    class Worker:
        def __init__(self) -> None:
            self.engine = SimpleNamespace(turns=TaskQueue(1))

        @run_in_queue
        def work(self, value: int, *, progress=None) -> tuple[int, int]:
            """Say it."""
            return value, self.engine.turns.busy

    worker = Worker()
    assert worker.work(3) == (3, 1)
    assert worker.work.__name__ == "work"
    assert worker.engine.turns.busy == 0


def test_work_is_done_by_a_few_threads_in_the_context_of_who_asked():
    turns, asked = TaskQueue(2), contextvars.ContextVar("asked", default=0)

    def ask(number: int) -> tuple[int, int]:
        asked.set(number)
        return turns.work(lambda: (asked.get(), threading.get_ident()))

    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(ask, range(40)))
    assert [number for number, _ in answers] == list(range(40))
    assert len({thread for _, thread in answers}) <= 2
    assert turns.busy == 0


def test_what_work_raises_reaches_who_asked_and_the_turn_is_handed_on():
    turns = TaskQueue(1)
    with pytest.raises(ZeroDivisionError):
        turns.work(lambda: 1 / 0)
    assert turns.work(lambda: turns.work(lambda: "inside")) == "inside"
    assert turns.busy == 0
