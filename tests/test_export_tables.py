"""Events as text: what a spreadsheet and an editor of sound read back."""

from __future__ import annotations

import csv
import io

import pytest

from xai_demo.export import audacity_labels, events_csv
from xai_demo.records import Event

WHEEZE = Event(label="wheeze", start_s=0.8, end_s=1.4, probability=0.83)
BOTH = Event(label="crackle, wheeze", start_s=3599.9999, end_s=3600.5, probability=1.0)


def named(label: str) -> Event:
    return Event(label=label, start_s=0.0, end_s=1.0, probability=0.5)


def rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_a_table_reads_back() -> None:
    text = events_csv([WHEEZE, BOTH])
    assert text.startswith("label,start_s,end_s,probability\r\nwheeze,0.800,1.400,0.8300\r\n")
    assert rows(text)[2] == ["crackle, wheeze", "3600.000", "3600.500", "1.0000"]


def test_no_events_are_a_heading_and_an_empty_track() -> None:
    assert events_csv([]) == "label,start_s,end_s,probability\r\n"
    assert audacity_labels([]) == ""


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "'=1", "\r\n=1"])
def test_a_label_never_becomes_a_formula(label: str) -> None:
    cell = rows(events_csv([named(label)]))[1][0]
    assert cell.startswith("'")
    assert cell.lstrip("'").strip() == label.strip().lstrip("'")


def test_an_ordinary_label_is_left_as_it_is() -> None:
    for label in ("wheeze", "cock-a-doodle-doo", 'the "both" of it', "bruit à droite"):
        assert rows(events_csv([named(label)]))[1][0] == label


def test_a_track_is_what_audacity_writes() -> None:
    assert audacity_labels([WHEEZE, BOTH]) == (
        "0.800000\t1.400000\twheeze\n3599.999900\t3600.500000\tcrackle, wheeze\n"
    )


def test_a_label_cannot_break_the_track_or_the_table() -> None:
    hostile = named("a\tb\nc\x00d")
    assert audacity_labels([hostile]) == "0.000000\t1.000000\ta b c d\n"
    assert rows(events_csv([hostile]))[1][0] == "a b c d"
