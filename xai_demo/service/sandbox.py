"""The worker's side: a small process that forks one confined worker for every file.

The nursery has imported the readers once, so that a worker costs a fork. A worker runs one job and
ends: nothing of a visitor's file outlives it, and a decoder that was taken over meets no second
file. Before it reads anything it gives up the network, other programs, writing files, all files but
its own and the libraries', and all memory and time beyond the limits. The main module is never
imported here.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import math
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from xai_demo.errors import XaiDemoError
from xai_demo.service.landlock import ReadOnlyFiles
from xai_demo.service.transfer import Encoder, decode, parse

# A frame is its length and that many bytes.
FRAME = struct.Struct("!Q")
# Larger results go to a file on the disk rather than to memory.
DISK_FROM_BYTES = 2**26
# The result of most files: a radiograph of 2 megapixels, or four minutes of sound.
_READY_BYTES = 2**23
_MAX_TRACEBACK_CHARACTERS = 4000
_CLONE_THREAD = 0x00010000

# No network, no other program or process, no view into another process, no way to new rights.
_DENIED_POWERS = """
    socket socketpair connect bind listen accept accept4 sendto sendmsg sendmmsg recvfrom recvmsg
    recvmmsg execve execveat fork vfork kill tkill tgkill pidfd_open pidfd_getfd
    pidfd_send_signal ptrace process_vm_readv process_vm_writev kcmp bpf perf_event_open
    userfaultfd keyctl add_key request_key mount umount2 move_mount open_tree fsopen fsmount
    pivot_root chroot setns unshare io_uring_setup io_uring_enter io_uring_register init_module
    finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff personality
    setrlimit setpriority sched_setscheduler acct syslog open_by_handle_at name_to_handle_at
"""
# No file written, changed or removed; arrays go to files that are open already.
_DENIED_CHANGES = """
    creat truncate unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mkdir
    mkdirat rmdir mknod mknodat chmod fchmod fchmodat chown fchown lchown fchownat utime utimes
    utimensat futimesat setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
    memfd_create shmget shmat mq_open openat2
"""
_DENIED_EVENTS = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one worker may take at most."""

    memory_bytes: int = 2 * 2**30  # of address space, libraries included
    cpu_s: float = 60.0
    result_bytes: int = 2**29
    open_files: int = 64
    niceness: int = 2


def serve(control: int, preload: list[str], limits: Limits) -> None:
    """Fork a worker for each set of descriptors that arrives, until the server hangs up.

    `control` is the descriptor of a Unix socket. `preload` names modules to import and functions,
    as "module:function", to call before; what is missing is skipped.
    """
    # Both reach the server too, which finishes its work and then hangs up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # The kernel then reaps the workers by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.dont_write_bytecode = True
    for name in preload:
        with contextlib.suppress(ImportError, XaiDemoError):
            if ":" in name:
                _function(name)()
            else:
                importlib.import_module(name)
    load_filter = _prepare_filter()
    gc.collect()
    # What is shared with the workers must not be touched by their garbage collector.
    gc.freeze()
    with socket.socket(fileno=control) as requests:
        while True:
            message, descriptors, _, _ = socket.recv_fds(requests, 1, 3)
            if not message:
                return
            if _fork() == 0:
                try:
                    requests.close()
                    _work(descriptors, limits, load_filter)
                finally:
                    # Not even an error may lead back into this loop.
                    os._exit(1)
            for descriptor in descriptors:
                os.close(descriptor)


def _fork() -> int:
    try:
        return os.fork()
    # No process is to be had: the server sees its end of the channel closed.
    except OSError:
        return -1


def _work(descriptors: list[int], limits: Limits, load_filter: Callable[[], None] | None) -> None:
    """Run one job; the descriptors are the channel to the server, a file in memory and on disk."""
    channel, *files = descriptors
    _give_up_priority(limits)
    _prepare_pages(files[0])
    readable = ReadOnlyFiles() if ReadOnlyFiles.is_supported() else None
    isolation = "seccomp" if load_filter else "audit hook"
    isolation += " and Landlock" if readable else ""
    write_frame(channel, json.dumps({"pid": os.getpid(), "isolation": isolation}).encode())
    if load_filter:
        load_filter()
    job = _read_frame(channel)
    if job is not None:
        call = decode(parse(job))
        # While its module can still be read.
        function = _function(call["function"])
        if readable:
            # The file that the job is about, and no other visitor's.
            given = [*call["args"], *call["kwargs"].values()]
            readable.add(each for each in given if isinstance(each, Path))
            readable.restrict()
        if not load_filter:
            sys.addaudithook(_refuse_event)
        write_frame(channel, _reply(function, call, files))
    os._exit(0)


def _prepare_pages(file: int) -> None:
    """Have the pages ready, while nobody waits, that most files and their results need."""
    pages = b"\1" * (2 * _READY_BYTES)
    # They stay with the process; see `settings.worker_environment`.
    del pages
    with contextlib.suppress(OSError):
        os.posix_fallocate(file, 0, _READY_BYTES)


def _reply(function: Callable[..., Any], call: dict[str, Any], files: list[int]) -> bytes:
    encoder = Encoder()
    try:
        result = encoder.encode(function(*call["args"], **call["kwargs"]))
        file = _write_result(encoder, files)
        return b'{"file":%d,"size":%d,"value":%s}' % (file, encoder.size, result)
    except XaiDemoError as error:
        failure = {"error": type(error).__name__, "message": str(error)}
    except MemoryError:
        failure = {"limit": "memory"}
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
            failure = {"limit": "size"}
        else:
            failure = {"fault": traceback.format_exc()[-_MAX_TRACEBACK_CHARACTERS:]}
    # Here, where the exception no longer holds the frames and their arrays.
    return json.dumps(failure).encode()


def _write_result(encoder: Encoder, files: list[int]) -> int:
    """Write the arrays to one of the files, in memory or on the disk, and return which one."""
    if encoder.size >= DISK_FROM_BYTES and len(files) > 1:
        # With the room reserved first, the server cannot meet a page that is not there.
        with contextlib.suppress(OSError):
            os.posix_fallocate(files[1], 0, encoder.size)
            encoder.write(files[1])
            return 1
        # Memory may have what the disk has not, but not both at once.
        os.ftruncate(files[1], 0)
    encoder.write(files[0])
    return 0


def _function(name: str) -> Callable[..., Any]:
    module, _, path = name.partition(":")
    function: Any = importlib.import_module(module)
    for attribute in path.split("."):
        function = getattr(function, attribute)
    return cast("Callable[..., Any]", function)


def _give_up_priority(limits: Limits) -> None:
    # Here, because the server imports this module too, and not on every system.
    import resource

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Decoders write to the standard streams what belongs to nobody's log.
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    os.nice(limits.niceness)
    # If memory runs out, the kernel takes a worker and not the server.
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")
    seconds = math.ceil(limits.cpu_s)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, limits.memory_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, limits.result_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files),
    ):
        _, most = resource.getrlimit(kind)
        value = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(kind, (value, value))


def _prepare_filter() -> Callable[[], None] | None:
    """A function that forbids this process its system calls for good; None without libseccomp."""
    try:
        import pyseccomp  # type: ignore[import-untyped]
    # Not installed, or without its library, or on another system.
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None
    denied = pyseccomp.ERRNO(errno.EPERM)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)

    def add(action: int, name: str, *conditions: Any) -> None:
        # A system call that this architecture or this library does not know needs no rule.
        with contextlib.suppress(OSError, ValueError):
            rules.add_rule(action, name, *conditions)

    for name in (_DENIED_POWERS + _DENIED_CHANGES).split():
        add(denied, name)
    masked, arg = pyseccomp.MASKED_EQ, pyseccomp.Arg
    # Threads, but no processes. glibc falls back from clone3, whose flags a filter cannot see.
    add(denied, "clone", arg(0, masked, _CLONE_THREAD, 0))
    add(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    # Reading limits is harmless; raising them is not.
    add(denied, "prlimit64", arg(2, pyseccomp.NE, 0))
    for name, place in (("open", 1), ("openat", 2)):
        for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC):
            add(denied, name, arg(place, masked, flag, flag))
    load: Callable[[], None] = rules.load
    return load


def _refuse_event(event: str, arguments: tuple[Any, ...]) -> None:
    """Without libseccomp, keep at least Python code from the network, programs and writing."""
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3 != os.O_RDONLY
    if is_write or event.startswith(_DENIED_EVENTS) or event == "ctypes.dlopen":
        raise PermissionError(errno.EPERM, "a worker may not do this")


def _read_frame(channel: int) -> bytes | None:
    """The next frame; None once the server has hung up."""
    head = _read_exactly(channel, FRAME.size)
    return None if head is None else _read_exactly(channel, FRAME.unpack(head)[0])


def _read_exactly(channel: int, count: int) -> bytes | None:
    parts = []
    while count:
        part = os.read(channel, min(count, 2**20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def write_frame(channel: int, content: bytes) -> None:
    """Write a frame to a blocking descriptor; raises OSError."""
    rest = memoryview(FRAME.pack(len(content)) + content)
    while rest:
        rest = rest[os.write(channel, rest) :]
