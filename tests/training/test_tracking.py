"""Where a training run is logged: the CSV file, and Weights & Biases in its offline mode."""

from __future__ import annotations

import sys
import time

import pytest

from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.training import tracking
from xai_demo.training.tracking import CsvTracker, TrackedRun, open_tracker


def tracked_run(out, first_step=0):
    return TrackedRun(out=out, name="lung-test", settings={"seed": 3}, first_step=first_step)


def lines(out):
    return (out / "log.csv").read_text().splitlines()


def test_every_epoch_is_written_as_a_line_at_once(tmp_path):
    tracker = open_tracker("csv", tracked_run(tmp_path / "new"))
    assert lines(tmp_path / "new") == ["step"]
    tracker.log(0, {"train": 1.5, "accuracy": 0.25})
    assert lines(tmp_path / "new") == ["step,train,accuracy", "0,1.5,0.25"]
    tracker.log(1, {"train": 1 / 3, "accuracy": 0.5})
    assert lines(tmp_path / "new")[2] == "1,0.333333,0.5"
    tracker.close()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["log.csv"]


def test_a_new_figure_is_a_new_column(tmp_path):
    tracker = CsvTracker(tracked_run(tmp_path))
    tracker.log(0, {"train": 1.0})
    tracker.log(1, {"train": 0.5, "late": 2.0})
    assert lines(tmp_path) == ["step,train,late", "0,1,", "1,0.5,2"]


def test_a_resumed_run_continues_after_its_checkpoint(tmp_path):
    first = CsvTracker(tracked_run(tmp_path))
    for step in range(3):
        first.log(step, {"train": step})
    again = CsvTracker(tracked_run(tmp_path, first_step=2))  # the third epoch had no checkpoint
    again.log(2, {"train": 20})
    assert lines(tmp_path) == ["step,train", "0,0", "1,1", "2,20"]


def test_a_new_run_starts_a_new_file(tmp_path):
    CsvTracker(tracked_run(tmp_path)).log(0, {"train": 1})
    CsvTracker(tracked_run(tmp_path)).log(0, {"other": 2})
    assert lines(tmp_path) == ["step,other", "0,2"]


def test_a_resumed_run_without_a_file_starts_one(tmp_path):
    CsvTracker(tracked_run(tmp_path, first_step=5)).log(5, {"train": 1})
    assert lines(tmp_path) == ["step,train", "5,1"]


def test_a_file_that_is_no_log_is_not_overwritten_by_a_resumed_run(tmp_path):
    (tmp_path / "log.csv").write_text("when,train\n0,1\n")
    with pytest.raises(
        TrainingError, match=r"log\.csv has rows without a step; it must be the log of the run"
    ):
        CsvTracker(tracked_run(tmp_path, first_step=1))
    assert lines(tmp_path) == ["when,train", "0,1"]


def test_a_log_with_a_column_epoch_can_be_continued(tmp_path):
    (tmp_path / "log.csv").write_text("epoch,train\n0,1\n1,2\n")
    CsvTracker(tracked_run(tmp_path, first_step=1)).log(1, {"train": 3})
    assert lines(tmp_path) == ["step,train", "0,1", "1,3"]


def test_the_error_for_an_unknown_tracker_lists_the_known_ones(tmp_path):
    with pytest.raises(
        UnknownNameError, match="no tracker named 'mlflow'; choose from: csv, wandb"
    ):
        open_tracker("mlflow", tracked_run(tmp_path))


def test_without_weights_and_biases_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TrainingError, match=r"not installed .*\. Run `pip install 'xai_demo\["):
        open_tracker("wandb", tracked_run(tmp_path))


def test_csv_never_imports_weights_and_biases(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would raise
    tracker = open_tracker("csv", tracked_run(tmp_path))
    tracker.log(0, {"train": 1})
    tracker.close()
    assert lines(tmp_path) == ["step,train", "0,1"]


def test_weights_and_biases_offline_keeps_the_run_beside_the_csv(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_DISABLE_GIT", "true")
    monkeypatch.setenv("WANDB_DISABLE_CODE", "true")
    tracker = open_tracker("wandb", tracked_run(tmp_path))
    tracker.log(0, {"train": 1.25})
    tracker.log(1, {"train": 0.75})
    tracker.close()
    assert lines(tmp_path) == ["step,train", "0,1.25", "1,0.75"]
    (kept,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    content = kept.read_bytes()
    for _ in range(100):  # its own process writes, a little later where the machine is busy
        if b"0.75" in content:
            break
        time.sleep(0.3)
        content = kept.read_bytes()
    for word in (b"lung-test", b"train", b"1.25", b"0.75", b"seed"):
        assert word in content


def test_an_error_of_weights_and_biases_says_what_to_do(tmp_path, monkeypatch):
    import wandb

    def refuse(**settings):
        raise wandb.errors.UsageError("No API key configured")

    monkeypatch.setattr(wandb, "init", refuse)
    with pytest.raises(TrainingError, match=r"\(No API key configured\)\. Run `wandb login` first"):
        tracking.open_tracker("wandb", tracked_run(tmp_path))
