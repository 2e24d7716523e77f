"""Fuzzes the readers for as long as is asked: `python -m tests.fuzz --minutes 10`.

`--file` reads one file again, as a finding's message says; `--files 10000` counts what becomes of
so many in a server's workers. Exit status 1: there are findings.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HANG_S, LIMIT_MB = 5, 1536
_START_S = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of fuzzing one reader for a while."""

    reader: str
    files: int  # read or refused as they should be
    output: str
    finding: Path | None


def fuzz_reader(reader: str, *, seconds: int, seed: int, out: Path) -> Run:
    """Fuzz one reader in a process of its own; a finding's file is in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    options = (f"-max_total_time={seconds}", f"-seed={seed}", f"-timeout={HANG_S}")
    # Behind a shell: a program inherits the peak of the memory of the process that starts it, and
    # libFuzzer would take that of the whole test suite for its own.
    command = ["sh", "-c", '"$@"; exit $?', "sh"]
    command += [sys.executable, "-m", "tests.fuzz.guided", reader, str(out), *options]
    command += [f"-rss_limit_mb={LIMIT_MB}", f"-malloc_limit_mb={LIMIT_MB}"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        # Files that reach new lines are kept, and the order of a set decides which lines those are:
        # with Python's random hashes, the same seed would try other files each time.
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=seconds + _START_S,
        check=False,
    )
    counts = [
        int(line.split()[-1])
        for line in done.stdout.splitlines()
        if line.startswith("stat::number_of_executed_units")
    ]
    findings = sorted(path for path in out.iterdir() if path.is_file())
    # Where nothing is left behind, the process itself is the finding: it did not even start.
    failed = done.returncode != 0 or bool(findings)
    return Run(
        reader=reader,
        files=counts[-1] if counts else 0,
        output=done.stdout,
        finding=(findings[0] if findings else out) if failed else None,
    )


def description(run: Run, seed: int) -> str:
    """What was found, with the end of the output and the command that repeats it."""
    end = "\n".join(run.output.splitlines()[-40:])
    return (
        f"{run.reader}: a finding with seed {seed}, file {run.finding}\n{end}\n"
        f"Again: .venv/bin/python -m tests.fuzz --reader {run.reader} --file {run.finding}"
    )


def count(files: int, seed: int) -> int:
    """Read so many files in workers, and print what became of them."""
    from tests.fuzz.counted import HANG_S, count_files

    began = time.monotonic()
    tally, workers = count_files(files, seed=seed)
    for finding in tally.findings:
        print(finding)
    print(
        f"{files} files, seed {seed}, {time.monotonic() - began:.0f} s: {tally.outcomes['read']}"
        f" read, {tally.outcomes['refused']} refused, {tally.outcomes['fault']} tracebacks;"
        f" the longest took {tally.longest_s:.1f} s, {workers.timed_out} more than {HANG_S:g} s;"
        f" workers lost: {workers.lost}, over their limit: {workers.over_limit};"
        f" findings: {len(tally.findings)}"
    )
    return int(bool(tally.findings or workers.lost or workers.timed_out or workers.over_limit))


def main() -> int:
    """Parse the arguments, fuzz, and print what came of it."""
    from tests.fuzz.readers import READERS, read_bytes

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--reader", choices=READERS, action="append", help="default: all in turn")
    parser.add_argument("--minutes", type=float, default=10.0, help="in all")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--file", type=Path, help="instead: read this one file")
    parser.add_argument("--files", type=int, help="instead: so many files through the workers")
    arguments = parser.parse_args()
    names = arguments.reader or list(READERS)
    if arguments.file:
        print(*(f"{n}: {read_bytes(READERS[n], arguments.file.read_bytes())}" for n in names))
        return 0
    if arguments.files:
        return count(arguments.files, arguments.seed)
    out = Path(tempfile.mkdtemp(prefix="fuzz-"))
    seconds = max(1, round(60 * arguments.minutes / len(names)))
    findings = 0
    for name in names:
        run = fuzz_reader(name, seconds=seconds, seed=arguments.seed, out=out / name)
        findings += run.finding is not None
        print(description(run, arguments.seed) if run.finding else f"{name}: {run.files} files")
        sys.stdout.flush()
    print(f"seed {arguments.seed}: {findings} findings")
    return int(findings > 0)


if __name__ == "__main__":
    sys.exit(main())
