"""Workers: results as from a call; what a file does to one of them is felt nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service import hostile_jobs
from xai_demo.errors import CancelledError, RequestError, UnknownNameError, UnreadableFileError
from xai_demo.records import Recording
from xai_demo.service.sandbox import Limits
from xai_demo.service.workers import WorkerPool
from xai_demo.settings import worker_environment

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux")

LIMITS = Limits(memory_bytes=2**30, cpu_s=20, result_bytes=2**27)


def new_pool(**options: Any) -> WorkerPool:
    given: dict[str, Any] = {
        "environment": worker_environment({"PATH": os.defpath, "HF_TOKEN": "hf_secret"}),
        "limits": LIMITS,
        "preload": ("tests.service.hostile_jobs", "no.such.module"),
        "records": (Recording,),
    }
    return WorkerPool(**(given | options))


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    made = new_pool(size=2)
    made.start()
    yield made
    made.close()


def await_true(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def processes() -> dict[int, int]:
    """Every process that has not ended, and its parent."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        # It has ended meanwhile.
        except OSError:
            continue
        if state not in "ZX":
            parents[int(entry.name)] = int(parent)
    return parents


def workers_of(pool: WorkerPool) -> set[int]:
    """The nursery and those that it has forked."""
    assert pool._nursery is not None
    nursery = pool._nursery.pid
    return {nursery} | {pid for pid, parent in processes().items() if parent == nursery}


def test_a_result_comes_back_as_from_a_call(pool: WorkerPool) -> None:
    sound = pool.run(hostile_jobs.recording, 9)
    here = hostile_jobs.recording(9)
    assert sound.samples.tobytes() == here.samples.tobytes()
    assert (sound.facts, sound.warnings, type(sound)) == (here.facts, here.warnings, Recording)
    assert pool.run(hostile_jobs.echo, value=(1, None, "a")) == (1, None, "a")
    assert pool.isolation.split(" and ")[0] in ("seccomp", "audit hook")


@pytest.mark.parametrize("megabytes", [1, 20, 100])  # copied, mapped from memory, from the disk
def test_arrays_of_every_size_are_exact_and_may_be_changed(
    pool: WorkerPool, megabytes: int
) -> None:
    back = pool.run(hostile_jobs.array, megabytes)
    assert (back == hostile_jobs.array(megabytes)).all()
    back[-1] = 0
    assert back[-1] == 0


def test_where_no_file_can_be_made_large_arrays_stay_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**_options: Any) -> None:
        raise OSError

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    lone = new_pool(size=1)
    assert lone.run(hostile_jobs.array, 80)[-1] == 80 * 2**18 - 1
    lone.close()


def test_the_errors_of_a_reader_are_raised_here(pool: WorkerPool) -> None:
    with pytest.raises(UnreadableFileError, match=r"^breath.wav is empty \(0 bytes\)"):
        pool.run(hostile_jobs.refuse)
    with pytest.raises(RequestError, match="There is no label named 'x'; choose from: a") as caught:
        pool.run(hostile_jobs.ask_for_the_unknown)
    assert not isinstance(caught.value, UnknownNameError)
    with pytest.raises(RuntimeError, match=r"in a worker: (?s:.*)ValueError|ZeroDivisionError"):
        pool.run(hostile_jobs.divide)
    with pytest.raises(TypeError, match="no arrays"):
        pool.run(hostile_jobs.echo, np.ones(3))


def test_a_worker_sees_little_and_stays_small(pool: WorkerPool) -> None:
    seen = pool.run(hostile_jobs.circumstances)
    assert "HF_TOKEN" not in seen["environment"]
    assert "hf_secret" not in str(seen["environment"])
    assert seen["environment"]["CUDA_VISIBLE_DEVICES"] == ""
    assert seen["environment"]["OMP_NUM_THREADS"] == "1"
    assert seen["heavy"] == []
    assert seen["main"] is None
    assert seen["niceness"] > os.getpriority(os.PRIO_PROCESS, 0)
    assert seen["core"] == (0, 0)
    # Three streams, the channel, two files, and the folder that is being listed.
    assert len(seen["files"]) == 7
    assert seen["resident_mb"] < 120
    assert pool.run(hostile_jobs.circumstances)["pid"] != seen["pid"]


def test_a_worker_has_no_network_no_programs_and_writes_nothing(
    pool: WorkerPool, tmp_path: Path
) -> None:
    pool.run(hostile_jobs.echo, 1)
    if "seccomp" not in pool.isolation:
        pytest.skip("libseccomp is not installed here")
    (tmp_path / "there").write_text("untouched")
    outcomes = pool.run(hostile_jobs.attempts, str(tmp_path))
    assert set(outcomes.values()) <= {"PermissionError", "ValueError"}, outcomes
    assert outcomes["socket"] == outcomes["fork"] == outcomes["execute"] == "PermissionError"
    assert [each.name for each in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "untouched"


def test_a_worker_reads_the_file_of_its_job_and_no_other(pool: WorkerPool, tmp_path: Path) -> None:
    pool.run(hostile_jobs.echo, 1)
    if "Landlock" not in pool.isolation:
        pytest.skip("this kernel has no Landlock")
    mine, others = tmp_path / "mine", tmp_path / "others"
    mine.write_text("my breath")
    others.write_text("somebody's film")
    for secret in (str(others), "/etc/passwd", "/proc/1/environ"):
        assert pool.run(hostile_jobs.read_both, mine, secret) == ("my breath", "refused")


def test_without_libseccomp_an_audit_hook_keeps_python_code_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "pyseccomp.py").write_text("raise RuntimeError('no libseccomp')")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "there").write_text("untouched")
    lone = new_pool(size=1)
    outcomes = lone.run(hostile_jobs.attempts, str(tmp_path))
    assert lone.isolation.startswith("audit hook")
    lone.close()
    kept = ("socket", "pair", "fork", "execute", "spawn", "system", "write", "append", "make")
    assert {outcomes[name] for name in kept} == {"PermissionError"}, outcomes


@pytest.mark.parametrize(
    ("job", "arguments", "says"),
    [
        (hostile_jobs.crash, (), "made the program that reads it stop"),
        (hostile_jobs.leave, (), "made the program that reads it stop"),
        (hostile_jobs.allocate_for_ever, (), r"more than the 1\.1 GB of memory"),
        (hostile_jobs.array, (200,), "more room than is allowed"),
        (hostile_jobs.write_for_ever, (4,), "more room than is allowed"),
        (hostile_jobs.send_garbage, (None, 2**60), "made the program"),
        (hostile_jobs.send_garbage, (None, 3), "made the program"),
    ],
)
def test_a_worker_that_fails_costs_one_sentence(
    pool: WorkerPool, job: Callable[..., Any], arguments: tuple[Any, ...], says: str
) -> None:
    before = pool.counts
    with ThreadPoolExecutor(1) as others:
        other = others.submit(pool.run, hostile_jobs.sleep, 0.5)
        with pytest.raises(UnreadableFileError, match=says) as caught:
            pool.run(job, *arguments)
        # Whoever is served at the same time notices nothing.
        assert other.result() == 0.5
    assert str(caught.value).count(".") <= 3
    after = pool.counts
    assert after.lost + after.over_limit == before.lost + before.over_limit + 1
    assert after.jobs == before.jobs + 2
    assert pool.run(hostile_jobs.echo, 1) == 1


def test_a_job_ends_at_its_deadline(pool: WorkerPool) -> None:
    before = pool.counts.timed_out
    for job, arguments in ((hostile_jobs.spin, ()), (hostile_jobs.sleep, (60,))):
        with pytest.raises(UnreadableFileError, match=r"longer than the 0\.3 s"):
            pool.run(job, *arguments, deadline_s=0.3)
    assert pool.counts.timed_out == before + 2
    # Time in a queue does not count, and processor time ends without any deadline too.
    lone = new_pool(size=1, limits=Limits(cpu_s=1), deadline_s=60)
    with pytest.raises(UnreadableFileError, match="made the program"):
        lone.run(hostile_jobs.spin)
    lone.close()


def test_cancelling_frees_the_worker_at_once(pool: WorkerPool) -> None:
    is_cancelled = threading.Event()
    with ThreadPoolExecutor(3) as visitors:
        jobs = [
            visitors.submit(pool.run, hostile_jobs.sleep, 60, cancelled=is_cancelled.is_set)
            for _ in range(3)  # two at work, one in the queue
        ]
        assert await_true(lambda: pool.busy == 2)
        began = time.monotonic()
        is_cancelled.set()
        for job in jobs:
            with pytest.raises(CancelledError):
                job.result()
        assert pool.run(hostile_jobs.echo, 1) == 1
        assert time.monotonic() - began < 10
    assert pool.busy == 0


def test_no_more_jobs_run_at_once_than_there_are_workers(pool: WorkerPool) -> None:
    most = []
    with ThreadPoolExecutor(8) as visitors:
        jobs = [visitors.submit(pool.run, hostile_jobs.sleep, 0.05) for _ in range(12)]
        while not all(job.done() for job in jobs):
            most.append(pool.busy)
            time.sleep(0.01)
    assert max(most) == 2


def test_whoever_is_killed_while_idle_is_replaced(pool: WorkerPool) -> None:
    pool.run(hostile_jobs.echo, 1)
    assert await_true(lambda: len(workers_of(pool)) == 3)
    killed = workers_of(pool)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)  # as for want of memory
    assert await_true(lambda: not killed & set(processes()))
    assert pool.run(hostile_jobs.echo, 2) == 2
    assert pool.counts.restarted >= 1


def test_a_dead_worker_leaves_nothing_behind() -> None:
    shared = set(os.listdir("/dev/shm"))
    lone = new_pool(size=1)
    lone.run(hostile_jobs.array, 20)
    for job in (hostile_jobs.crash, hostile_jobs.leave):
        with pytest.raises(UnreadableFileError):
            lone.run(job)
    lone.close()
    assert set(os.listdir("/dev/shm")) == shared


def test_five_hundred_jobs_leave_descriptors_threads_and_processes_as_they_were() -> None:
    lone = new_pool(size=2)
    lone.run(hostile_jobs.echo, 1)

    def state() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = state()
    with ThreadPoolExecutor(4) as visitors:
        list(visitors.map(lambda i: lone.run(hostile_jobs.echo, i), range(500)))
    assert state() == before
    assert lone.counts.jobs == 501
    assert await_true(lambda: len(workers_of(lone)) == 3)
    ended = workers_of(lone)
    lone.close()
    assert await_true(lambda: not ended & set(processes()))
    with pytest.raises(CancelledError, match="stopping"):
        lone.run(hostile_jobs.echo, 1)
    lone.close()


def test_closing_ends_who_is_at_work() -> None:
    lone = new_pool(size=1)
    with ThreadPoolExecutor(1) as visitors:
        job = visitors.submit(lone.run, hostile_jobs.sleep, 60)
        assert await_true(lambda: lone.busy == 1 and bool(lone.isolation))
        lone.close()
        with pytest.raises(CancelledError):
            job.result()


def test_a_fork_of_the_server_reads_by_itself(pool: WorkerPool) -> None:
    pool.run(hostile_jobs.echo, 1)
    pid = os.fork()
    if pid == 0:
        # Nothing of pytest's may run in here.
        right = pool.isolation == "none" and pool.run(hostile_jobs.echo, 7) == 7
        pool.close()
        os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert pool.run(hostile_jobs.echo, 2) == 2


def test_the_main_module_is_not_imported_again(tmp_path: Path) -> None:
    program = tmp_path / "main.py"
    program.write_text(
        "import os, sys\n"
        "print('imported', flush=True)\n"
        "from tests.service import hostile_jobs, test_workers\n"
        "pool = test_workers.new_pool(size=1)\n"
        "pool.start()\n"
        "print(pool.run(hostile_jobs.circumstances)['main'])\n"
    )
    command = [sys.executable, str(program)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)}, timeout=60
    )
    # It ends by itself, although nobody has closed the pool.
    assert (done.returncode, done.stdout, done.stderr) == (0, "imported\nNone\n", "")
