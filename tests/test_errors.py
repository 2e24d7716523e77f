"""The exception tree: every error ends the command line with the status its docstring draws."""

from __future__ import annotations

import inspect

import pytest

from xai_demo import errors

STATUS = {
    errors.XaiDemoError: 1,
    errors.RequestError: 2,
    errors.UnreadableFileError: 2,
    errors.DeidentificationError: 2,
    errors.DeadlineError: 2,
    errors.AnnotationError: 2,
    errors.UnknownNameError: 2,
    errors.UnsuitableError: 2,
    errors.WeightsError: 3,
    errors.CheckpointUnavailableError: 3,
    errors.CheckpointMismatchError: 3,
    errors.TrainingError: 2,
    errors.CancelledError: 1,
}
ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind in STATUS]


def test_no_error_is_left_out_here() -> None:
    defined = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if kind.__module__ == errors.__name__
    }
    assert defined == set(STATUS)
    assert all(issubclass(kind, errors.XaiDemoError) for kind in defined)


@pytest.mark.parametrize("kind", ALL)
def test_the_exit_status_is_the_documented_one(kind: type[errors.XaiDemoError]) -> None:
    assert kind.exit_status == STATUS[kind]
    assert kind.__name__ in (errors.__doc__ or "")


def test_an_unknown_name_is_named_with_the_known_ones() -> None:
    error = errors.UnknownNameError("label", "whezze", ["normal", "wheeze"])
    assert str(error) == "There is no label named 'whezze'; choose from: normal, wheeze."


def test_of_very_many_names_a_few_are_listed_and_the_rest_counted() -> None:
    error = errors.UnknownNameError("label", "x", [f"l{i}" for i in range(527)])
    assert "l29 and 497 more" in str(error)
    assert "l30" not in str(error)
