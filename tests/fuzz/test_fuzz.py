"""A minute of fuzzing, shared by the readers, and tests of what makes the files.

The seed is fixed, so that a build tells about the code and not about luck; `make fuzz` takes a new
one each time.
"""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from tests.fuzz.__main__ import description, fuzz_reader
from tests.fuzz.counted import count_files
from tests.fuzz.mutation import Field, fields, mutate
from tests.fuzz.readers import READERS, read_bytes
from tests.support.hostile_files import picture_bytes, radiograph, wav_bytes

SEED = 13
# Decoders of pixels and sound are where the bombs are; the rest is quick to exhaust.
SECONDS = {"dicom": 12, "image": 9, "sound": 9, "wav": 6, "deidentify": 6}
OTHERS_S = 3


@pytest.mark.parametrize("reader", READERS)
def test_no_mutated_file_crashes_hangs_or_is_answered_with_nonsense(
    reader: str, tmp_path: Path
) -> None:
    seconds = SECONDS.get(reader, OTHERS_S)
    run = fuzz_reader(reader, seconds=seconds, seed=SEED, out=tmp_path / reader)
    assert run.finding is None, description(run, SEED)
    assert run.files > 20, run.output


def test_the_budget_is_a_minute() -> None:
    assert sum(SECONDS.get(reader, OTHERS_S) for reader in READERS) == 60


@pytest.mark.parametrize("name", READERS)
def test_every_reader_has_files_to_start_from_that_it_reads(name: str) -> None:
    outcomes = [read_bytes(READERS[name], seed) for seed in READERS[name].seeds()]
    assert outcomes.count("read") > len(outcomes) / 2


def test_the_same_chance_gives_the_same_file() -> None:
    seeds = READERS["dicom"].seeds()
    first, again = (mutate(seeds[0], random.Random(7), seeds[1]) for _ in range(2))
    assert first == again != seeds[0]


def test_a_wav_has_its_numbers_where_they_are_looked_for() -> None:
    located = fields(wav_bytes(bytes(8), rate=8000, channels=3))
    assert Field(22, 2, "<", "components") in located
    assert Field(24, 4, "<", "rate") in located
    assert Field(40, 4, "<") in located


def test_the_sizes_of_a_dicom_and_of_its_codestream_are_of_one_role() -> None:
    (seed,) = [data for data in READERS["dicom"].seeds() if b"\xff\x51\0\x29" in data][:1]
    located = fields(seed)
    siz = seed.index(b"\xff\x51\0\x29")
    rows = seed.index(b"\x28\0\x10\0US") + 8
    assert {Field(siz + 10, 4, ">", "height"), Field(rows, 2, "<", "height")} <= set(located)
    assert Field(siz + 38, 2, ">", "components") in located


def test_a_mutated_png_has_a_right_checksum() -> None:
    data, chance = picture_bytes(radiograph(40, 40), "PNG"), random.Random(1)
    for _ in range(50):
        changed = mutate(data, chance)
        if changed[:8] != data[:8] or len(changed) < 33 or changed[8:12] != data[8:12]:
            continue
        (checksum,) = struct.unpack(">I", changed[29:33])
        if checksum == zlib.crc32(changed[12:29]) and changed[12:29] != data[12:29]:
            return
    raise AssertionError("no changed header with a right checksum among 50")


def test_files_are_counted_through_the_workers_of_a_server() -> None:
    tally, workers = count_files(60, seed=SEED)
    assert tally.findings == []
    assert tally.outcomes["read"] + tally.outcomes["refused"] == 60
    assert tally.outcomes["read"] > 5
    assert (workers.lost, workers.timed_out, workers.over_limit) == (0, 0, 0)


@pytest.mark.parametrize("reader", ["exif", "tiff", "image"])
def test_a_bigtiff_that_points_beyond_all_memory_is_no_fault(reader: str) -> None:
    assert read_bytes(READERS[reader], b"II+\0\x08\0\0\0" + b"\xff" * 24) in ("read", "refused")
