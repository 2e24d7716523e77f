"""NIH's list of boxes: as it is published, and as it must not be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.small_models import model_of, write_model
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.catalog import MODELS, Entry
from xai_demo.errors import TrainingError
from xai_demo.records import Raster
from xai_demo.settings import Settings
from xai_demo.training import explainer_eval, explainer_report
from xai_demo.training.datasets import nih
from xai_demo.training.explainer_eval import ground_truth, pointing

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
GOOD = "00000007_000.png,Mass,256,512,128,64,,,"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures at a fraction of their published size, one as JPEG."""
    (tmp_path / "images").mkdir()
    for name in ("00000007_000.jpg", "00000012_003.png"):
        Image.new("L", (64, 64), 90).save(tmp_path / "images" / name)
    return tmp_path


def listed(folder: Path, *rows: str, header: str = HEADER) -> nih.BoxList:
    path = folder / nih.BOX_LIST
    path.write_text("\n".join([header, *rows]) + "\n")
    assert nih.find_box_list(folder) == path
    return nih.read_boxes(path, folder)


def test_a_box_is_read_in_fractions_and_finds_its_picture_whatever_its_format(folder):
    found = listed(folder, GOOD, "00000012_003.png,Infiltrate,0,0,1024,1024,,,")
    mass, infiltration = found.radiographs
    assert mass.path.name == "00000007_000.jpg"
    assert (mass.patient, infiltration.patient) == ("7", "12")
    assert mass.boxes == (nih.Box(finding="Mass", x=0.25, y=0.5, width=0.125, height=0.0625),)
    assert infiltration.boxes[0].finding == "Infiltration"  # the labels' own word
    assert found.notes == ()


def test_several_boxes_of_a_picture_are_kept_together(folder):
    found = listed(folder, GOOD, GOOD.replace("Mass", "Nodule"), "", ",,,,,,,,")
    (picture,) = found.radiographs
    assert [box.finding for box in picture.boxes] == ["Mass", "Nodule"]
    assert found.notes == ()


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("00000007_000.png,Mass,256,many,128,64", "four numbers, left out: line 3 (256, many"),
        ("00000007_000.png,Mass,nan,1,128,64", "four numbers, left out: line 3 (nan, 1, 128, 64)"),
        ("00000007_000.png,Mass,1000,1,128,64", "outside the 1024 x 1024 pixels, left out: line 3"),
        ("00000007_000.png,Mass,-5,1,128,64", "(-5, 1, 128, 64)"),
        ("00000007_000.png,Mass,5,1,0,64", "(5, 1, 0, 64)"),
        ("00000007_000.png,Broken heart,5,1,9,9", "unknown finding, left out: line 3 (Broken he"),
        ("00009999_000.png,Mass,5,1,9,9", "without a radiograph: line 3 (00009999_000.png)"),
        ("00000007_000.png,Mass,5", "fewer than six fields, left out: line 3 (00000007_000.png"),
    ],
)
def test_a_row_that_will_not_do_is_counted_and_named(folder, row, said):
    found = listed(folder, GOOD, row)
    assert len(found.radiographs) == 1
    (note,) = found.notes
    assert note.startswith("BBox_List_2017.csv: 1 boxes ")
    assert said in note


def test_many_faults_of_a_kind_are_counted_and_the_first_named(folder):
    (note,) = listed(folder, GOOD, *["1.png,Mass,5,1,9,9"] * 5).notes
    assert (
        "5 boxes without a radiograph: line 3 (1.png); line 4 (1.png); line 5 (1.png) and 2" in note
    )


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("Image Index,Finding Labels,x,y,w,h", "Image Index, Finding Labels, x, y, w, h; expected"),
        ("Image Index,Finding Label,Bbox", "has the columns Image Index, Finding Label, Bbox; e"),
        ("", "has the columns none; expected are Image Index, Finding Label, Bbox"),
    ],
)
def test_another_header_is_refused_in_one_sentence(folder, header, said):
    with pytest.raises(TrainingError, match=r"BBox_List_2017\.csv has the columns") as caught:
        listed(folder, GOOD, header=header)
    assert said in str(caught.value)


def test_a_list_without_a_usable_row_is_refused_with_the_reason(folder):
    with pytest.raises(TrainingError, match=r"1 boxes without a radiograph: line 2 \(1.png\)"):
        listed(folder, "1.png,Mass,5,1,9,9")
    with pytest.raises(TrainingError, match=r"has no rows\. At least one box"):
        listed(folder)
    (folder / nih.BOX_LIST).write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(TrainingError, match="cannot be read as text"):
        nih.read_boxes(folder / nih.BOX_LIST, folder)


def masks(folder: Path, spec: Raster) -> np.ndarray:
    model = model_of("resnet18", labels=("Mass", "Hernia"), normal_label=None, preprocessing=spec)
    settings = Settings(weights_dir=folder, cache_dir=folder)
    (case,) = ground_truth.boxed_radiographs(listed(folder, GOOD).radiographs, model, settings)
    assert set(case.truths) == {"Mass"}
    assert case.group == "7"
    return case.truths["Mass"].masks[0]


def test_a_box_lies_on_the_networks_picture_where_it_lies_on_the_film(folder):
    mask = masks(folder, Raster(height=32, width=32, mean=0.5, std=0.25))
    wanted = np.zeros((32, 32), bool)
    wanted[16:18, 8:12] = True
    assert np.array_equal(mask, wanted)


def test_a_box_is_cropped_as_the_picture_is(folder):
    Image.new("L", (128, 64), 90).save(folder / "images" / "00000007_000.jpg")  # 32 off each side
    mask = masks(folder, Raster(height=64, width=64, mean=0.5, std=0.25, crop="centre"))
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (32, 36, 0, 16)


def test_boxed_findings_are_measured_from_the_films_to_the_table(folder, monkeypatch):
    """A network that finds everything everywhere, so that every box is a true positive."""
    labels = ("Mass", "Infiltration", "Hernia")
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    monkeypatch.setitem(MODELS, "boxed", Entry(task="chest_xray"))
    model = model_of(
        "tiny",
        name="boxed",
        labels=labels,
        normal_label=None,
        activation="sigmoid",
        operating_points=dict.fromkeys(labels, 0.0),
    )
    write_model(folder / "weights" / "boxed", model)
    listed(folder, GOOD, "00000012_003.png,Infiltrate,0,0,1024,1024,,,")
    settings = Settings(
        weights_dir=folder / "weights",
        cache_dir=folder / "cache",
        offline=True,
        background_export=False,
    )
    result = explainer_eval.evaluate_explainers(
        "boxed", settings=settings, data=folder, only=["Grad-CAM", "Occlusion"]
    )
    assert result["truth"].startswith("boxes that radiologists drew")
    assert result["answered"]["real"] == {
        "Mass": {"files": 1, "right": 1},
        "Infiltration": {"files": 1, "right": 1},
    }
    for row in result["per_label"].values():
        # the second box is the whole film: nobody can miss it, and chance is one
        assert row["Infiltration"]["pointing"]["value"] == 1
        assert row["Infiltration"]["pointing_chance"]["value"] == 1
        assert {f"iou_{level:g}" for level in pointing.IOU_LEVELS} < set(row["Mass"])
        assert row["Mass"]["pointing_chance"]["value"] == pytest.approx(1 / 128, rel=0.3)
    text = explainer_report.table(result)
    assert "| Infiltration | 1 | 1 | Grad-CAM | 1.00 (1.00-1.00) |" in text
