"""Annotated cycles: what is read, what is repaired with a warning, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from xai_demo.audio.segments import Cycle, read_cycles
from xai_demo.errors import AnnotationError, UnreadableFileError

PLAIN = "0.036\t0.579\t0\t0\n0.579\t2.45\t1\t0\n2.45\t3.893\t0\t1\n3.893\t5.793\t1\t1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "101_1b1_Al_sc_Meditron.txt"


def spans(cycles: tuple[Cycle, ...]) -> list[tuple[float, float]]:
    return [(cycle.start_s, cycle.end_s) for cycle in cycles]


def test_the_published_form_is_read_as_it_is(file: Path) -> None:
    file.write_text(PLAIN)
    cycles, warnings = read_cycles(file, duration_s=20)
    assert spans(cycles) == [(0.036, 0.579), (0.579, 2.45), (2.45, 3.893), (3.893, 5.793)]
    assert [cycle.label for cycle in cycles] == ["normal", "crackle", "wheeze", "both"]
    assert warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "0.5 1.5 0 1",
        "  0.5   1.5  0.0 1.0  \r\n\r\n",
        "0.5,1.5,0,1\n",
        "0.5;1.5;0;1\n",
        "0.5, 1.5, 0, 1\n",
        "﻿0.5\t1.5\t0\t1\n",
        "start\tend\tcrackles\twheezes\n0.5\t1.5\t0\t1\n",
        "start, end, crackles, wheezes\n0.5,1.5,0,1\n",
        "start,end,crackles,wheezes\r\n0.5,1.5,0,1\r\n",
        "\nstart;end;crackles;wheezes\n0.5;1.5;0;1\n",
        "Start_s\tEnd_s\tCrackles\tWheezes\n0.5\t1.5\t0\t1\n",
        '"start","end","crackles","wheezes"\n"0.5","1.5","0","1"\n',
        "file,wheezes,crackles,start,end\na.wav,1,0,0.5,1.5\n",
        "onset ; offset ; crackles ; wheezes\n0.5 ; 1.5 ; 0 ; 1\n",
    ],
)
def test_other_ways_to_write_the_same_are_read(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="")
    cycles, warnings = read_cycles(file, duration_s=20)
    assert cycles == (Cycle(start_s=0.5, end_s=1.5, crackles=False, wheezes=True),)
    assert warnings == ()


@pytest.mark.parametrize("text", ["0,5\t1,5\t0\t1\n", "0,5;1,5;0;1\n", "1.5 2 0 0\n0,5 1,5 0 1"])
def test_commas_for_points_are_read_with_a_warning(file: Path, text: str) -> None:
    file.write_text(text)
    cycles, warnings = read_cycles(file, duration_s=20)
    assert spans(cycles)[0] == (0.5, 1.5)
    assert len(warnings) == 1
    assert "decimal commas in 1 lines" in warnings[0]
    assert "0,5" in warnings[0]


def test_a_text_in_16_bits_is_read(file: Path) -> None:
    file.write_text("0.5 1.5 0 1\n", encoding="utf-16")
    assert spans(read_cycles(file, duration_s=20)[0]) == [(0.5, 1.5)]


def test_cycles_come_by_time(file: Path) -> None:
    file.write_text("4 5 0 0\n1 2 0 0\n")
    assert spans(read_cycles(file, duration_s=9)[0]) == [(1, 2), (4, 5)]


def test_a_reversed_cycle_is_left_out_and_named(file: Path) -> None:
    file.write_text("1 2 0 0\n5 4 1 0\n3 3 0 0\n")
    cycles, warnings = read_cycles(file, duration_s=9)
    assert spans(cycles) == [(1, 2)]
    assert [w for w in warnings if "Line 2" in w and "'5 4 1 0'" in w and "ends before" in w]
    assert [w for w in warnings if "Line 3" in w and "'3 3 0 0'" in w]


def test_a_cycle_outside_is_left_out_and_named(file: Path) -> None:
    file.write_text("1 2 0 0\n9.5 12 1 0\n-3 -1 0 0")
    cycles, warnings = read_cycles(file, duration_s=9)
    assert spans(cycles) == [(1, 2)]
    assert sum("outside the recording of 9 s" in w for w in warnings) == 2


def test_a_cycle_that_reaches_out_is_cut_and_named(file: Path) -> None:
    file.write_text("-1 2 0 0\n8 12 1 0\n")
    cycles, warnings = read_cycles(file, duration_s=9)
    assert spans(cycles) == [(0, 2), (8, 9)]
    assert [w.split(" extends")[0] for w in warnings] == [
        "Line 1 of the annotation ('-1 2 0 0')",
        "Line 2 of the annotation ('8 12 1 0')",
    ]


def test_cycles_of_more_than_twice_the_recording_are_refused(file: Path) -> None:
    file.write_text("0 3600 0 0\n" * 2)
    assert len(read_cycles(file, duration_s=9)[0]) == 2
    file.write_text("0 3600 0 0\n" * 200)
    with pytest.raises(AnnotationError, match=r"200 cycles of 1800\.0 s .* at most twice"):
        read_cycles(file, duration_s=9)


def test_more_cycles_than_anybody_breathes_are_refused(file: Path) -> None:
    file.write_text("".join(f"{k / 10} {k / 10 + 0.1} 0 0\n" for k in range(80)))
    with pytest.raises(AnnotationError, match=r"80 cycles .* expected at most 45, 5 a second"):
        read_cycles(file, duration_s=9)


def test_more_lines_than_anybody_annotates_are_refused_before_they_are_parsed(file: Path) -> None:
    file.write_text("0 9 0 0\n" * 180_000)
    with pytest.raises(AnnotationError, match=r"180000 lines; expected at most 10000"):
        read_cycles(file, duration_s=9)


def test_a_file_is_called_as_it_was_uploaded(file: Path) -> None:
    file.write_text("1 2 zero 0\n")
    with pytest.raises(AnnotationError, match=r"^breaths\.csv, line 1, is"):
        read_cycles(file, duration_s=9, name="breaths.csv")


def test_a_few_hundredths_beyond_the_end_are_cut_without_a_word(file: Path) -> None:
    file.write_text("8 9.04 0 0\n")
    cycles, warnings = read_cycles(file, duration_s=9)
    assert (spans(cycles), warnings) == ([(8, 9)], ())


def test_overlapping_cycles_stay_and_are_named(file: Path) -> None:
    file.write_text("1 5 0 0\n2 3 1 0\n4 6 0 1\n6 7 0 0\n")
    cycles, warnings = read_cycles(file, duration_s=9)
    assert len(cycles) == 4
    assert warnings == (
        "Line 2 of the annotation ('2 3 1 0') overlaps line 1 ('1 5 0 0'); both are kept.",
        "Line 3 of the annotation ('4 6 0 1') overlaps line 1 ('1 5 0 0'); both are kept.",
    )


def test_of_very_many_warnings_some_are_told_and_the_rest_counted(file: Path) -> None:
    file.write_text("1 2 0 0\n" + "5 4 0 0\n" * 1000)
    _, warnings = read_cycles(file, duration_s=9)
    assert len(warnings) == 21
    assert "980 more" in warnings[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 0 0\n1.0 2.0 0\n", "line 2, is '1.0 2.0 0'"),
        ("1 2 0 0 7\n", "line 1, is '1 2 0 0 7'"),
        ("1 2 zero 0\n", "line 1, is '1 2 zero 0'"),
        ("1 2 0 2\n", "line 1, is '1 2 0 2'; expected 0 or 1"),
        ("1 2 0.5 0\n", "expected 0 or 1"),
        ("nan 2 0 0\n", "'nan 2 0 0'; expected times in seconds"),
        ("1 inf 0 0\n", "'1 inf 0 0'; expected times in seconds"),
        ("1,0,2,0,0,0\n", "line 1, is '1,0,2,0,0,0'"),
        ("a very " + "long " * 99, "line 1, is 'a very long long .*…'"),
        ("\n \n\t\n", "no line with a cycle"),
        ("start end crackles wheezes\n", "no line with a cycle"),
        ("30 40 0 0\n", "no cycle within a recording of 9 s: line 1 is '30 40 0 0'"),
        ("2 1 0 0\n", "no cycle within a recording of 9 s"),
        ('{"start": 1}', "line 1, is"),
    ],
)
def test_what_is_no_list_of_cycles_is_refused(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(AnnotationError, match=words) as caught:
        read_cycles(file, duration_s=9)
    assert "expected" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"RIFF\x24\0\0\0WAVEfmt ", "is a file of type WAV"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is a file of type PNG"),
        (b"1 2 0 0\n\xff\xfe\xfa", "byte 0xff at position 8"),
        (b"1 2 0 0\n\0\0\0", "byte 0x00"),
        (b"\xff\xfe1\0 ", "byte 0x20 at position 4"),
        (b"1 2 0 0\n" * 250_001, "larger than 2 MB"),
    ],
)
def test_what_is_no_text_is_refused(file: Path, content: bytes, words: str) -> None:
    file.write_bytes(content)
    with pytest.raises(AnnotationError, match=words):
        read_cycles(file, duration_s=9)


def test_what_cannot_be_opened_or_is_empty_is_refused(tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(UnreadableFileError, match=r"empty\.txt is empty"):
        read_cycles(empty, duration_s=9)
    with pytest.raises(UnreadableFileError, match=r"missing\.txt cannot be read"):
        read_cycles(tmp_path / "missing.txt", duration_s=9)
    with pytest.raises(UnreadableFileError, match="not a file"):
        read_cycles(tmp_path, duration_s=9)


def test_a_line_that_would_break_a_message_is_made_harmless(file: Path) -> None:
    file.write_text("1 2 0 0\n\x1b[31mred\x07 x y z\n")
    with pytest.raises(AnnotationError) as caught:
        read_cycles(file, duration_s=9)
    assert str(caught.value).isprintable()
