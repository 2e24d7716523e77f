"""Recordings of many labels over time: steps of a framewise network, events, zoom and search."""

from __future__ import annotations

import base64
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.support.fake_analyser import MODELS, FakeAnalyser, answer
from tests.support.small_models import analyser_of
from xai_demo import networks
from xai_demo.analysis import Analyser, audio_input, inference, inputs
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import CNN14
from xai_demo.networks import ARCHITECTURES
from xai_demo.networks.panns_modules import Cnn14Framewise, ConvBlock
from xai_demo.records import Recording, Timeline
from xai_demo.tabs.result import answer_html
from xai_demo.tabs.timeline import events_table, timeline_html

NAME = "small-framewise"
RATE_HZ = 32_000
MODEL = dataclasses.replace(
    CNN14, name=NAME, architecture=NAME, labels=("Dog", "Rain", "Tick-tock")
)
BIG = MODELS[2]


def small_framewise(model):
    """Cnn14_DecisionLevelMax with a sixty-fourth of its channels."""
    network = Cnn14Framewise(len(model.labels))
    widths = (1, 4, 8, 8, 16, 16, 32)
    for i in range(6):
        setattr(network, f"conv_block{i + 1}", ConvBlock(widths[i], widths[i + 1]))
    network.fc1 = torch.nn.Linear(32, 32)
    network.fc_audioset = torch.nn.Linear(32, len(model.labels))
    torch.nn.init.normal_(network.fc_audioset.weight, std=0.2)
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = None
    with torch.no_grad():
        network.train()(60 * torch.rand(4, 1, 64, 128) - 80)
    return network


@pytest.fixture
def analyser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyser:
    kind = dataclasses.replace(ARCHITECTURES["cnn14-decisionlevelmax"], build=small_framewise)
    monkeypatch.setitem(networks.ARCHITECTURES, NAME, kind)
    return analyser_of(tmp_path, MODEL)


def clip(path: Path, seconds: float) -> Path:
    rng = np.random.default_rng(3)
    count = round(seconds * RATE_HZ)
    loud = 0.02 + 0.3 * (np.arange(count) // RATE_HZ % 3 == 0)
    soundfile.write(path, np.clip(loud * rng.standard_normal(count), -1, 1), RATE_HZ)
    return path


def test_a_framewise_network_has_steps_of_a_third_of_a_second(analyser, tmp_path):
    analysis = analyser.analyse(
        AnalysisRequest(task="audioset", faithfulness=False), clip(tmp_path / "clip.wav", 23.0)
    )
    line = analysis.timeline
    assert line is not None
    assert len(line.starts_s) == round(23.0 / 0.32)
    assert line.starts_s[:3] == pytest.approx((0, 0.32, 0.64))
    assert line.ends_s[-1] == pytest.approx(23.0)
    np.testing.assert_allclose(line.starts_s[1:], line.ends_s[:-1])
    # What the whole is called by is its surest moment.
    overall = {p.label: p.probability for p in analysis.report.predictions}
    for k, label in enumerate(line.labels):
        assert line.probabilities[:, k].max() == pytest.approx(overall[label], abs=1e-6)
    assert np.ptp(line.probabilities, axis=0).max() > 0.01


def test_steps_are_the_authors_frames_and_overlaps_take_the_maximum(analyser):
    network = analyser.engine.network(NAME)
    samples = np.random.default_rng(0).normal(0, 0.1, 12 * RATE_HZ).astype(np.float32)
    prepared = inputs.prepare(
        network.model, Recording(samples=samples, sample_rate_hz=RATE_HZ, facts={})
    )
    assert prepared.starts == (0, 200)
    given = inference.run_network(network, prepared.inputs)
    assert given.steps.shape == (2, 3, 32)
    with torch.inference_mode():
        logits = networks.architecture(network.model).framewise(
            network.head, torch.cat(given.activations), 1001
        )
    for frame in (0, 31, 32, 700, 991):
        np.testing.assert_allclose(
            given.steps[:, :, frame // 32], logits[:, :, frame].sigmoid(), rtol=1e-4, atol=1e-6
        )
    # Two windows that say 0.1 and 0.9 throughout: the second starts at 2 s.
    steps = np.stack([np.full((3, 32), 0.1), np.full((3, 32), 0.9)]).astype(np.float32)
    line = prepared.timeline(network.model, given.probabilities, steps)
    heard = np.array(line.probabilities[:, 0])
    before = np.array(line.starts_s) + 0.16 < 2.0
    np.testing.assert_allclose(heard[before], 0.1)
    np.testing.assert_allclose(heard[~before], 0.9)


def of_rows(rows, labels=("Dog", "Rain")) -> Timeline:
    count = len(rows)
    return Timeline(
        starts_s=tuple(map(float, range(count))),
        ends_s=tuple(float(i + 1) for i in range(count)),
        labels=labels,
        probabilities=np.array(rows, np.float32),
    )


def test_independent_labels_may_overlap_and_have_their_own_points():
    model = dataclasses.replace(MODEL, labels=("Dog", "Rain"), operating_points={"Rain": 0.2})
    line = of_rows([[0.6, 0.1], [0.7, 0.25], [0.4, 0.3], [0.5, 0.1], [0.1, 0.9]])
    found = audio_input.independent_events(model, line)
    assert [(e.label, e.start_s, e.end_s, e.probability) for e in found] == [
        ("Dog", 0.0, 2.0, 0.7),
        ("Rain", 1.0, 3.0, 0.3),
        ("Dog", 3.0, 4.0, 0.5),
        ("Rain", 4.0, 5.0, 0.9),
    ]
    normal = dataclasses.replace(model, normal_label="Dog")
    assert {e.label for e in audio_input.independent_events(normal, line)} == {"Rain"}
    assert audio_input.independent_events(model, of_rows([[0.1, 0.1]])) == ()


def many() -> Timeline:
    """527 labels over 10 windows; label 7 rises from 0 to 1."""
    rows = np.zeros((10, len(BIG.labels)), np.float32)
    rows[:, 7] = np.linspace(0, 1, 10)
    return of_rows(rows, BIG.labels)


def test_every_label_can_be_searched_and_takes_few_bytes():
    analysis = dataclasses.replace(answer(BIG, "clip.wav", "Grad-CAM++", None), timeline=many())
    html = timeline_html(analysis)
    assert "data-zoom" in html
    packed = base64.b64decode(re.search('data-find="([^"]+)"', html).group(1))
    names = re.search('data-names="([^"]+)"', html).group(1).split("|")
    assert len(names) == 527
    assert html.count("<option ") == 527
    count = int.from_bytes(packed[:2], "little")
    assert count == 10
    assert len(packed) == 2 + 2 * 10 + 527 * 10
    ends = np.frombuffer(packed[2:22], "<u2") / 65535
    duration_s = analysis.view.duration_s
    np.testing.assert_allclose(ends, np.minimum(np.arange(1, 11) / duration_s, 1), atol=1e-4)
    chances = np.frombuffer(packed[22:], np.uint8).reshape(527, 10) / 255
    np.testing.assert_allclose(chances[7], np.linspace(0, 1, 10), atol=1 / 255)
    assert chances[8].max() == 0
    few = answer(MODELS[0], "clip.wav", "Grad-CAM++", None)
    assert "data-find" not in timeline_html(few)
    assert "data-zoom" in timeline_html(
        dataclasses.replace(few, timeline=of_rows(np.full((3, 4), 0.2), MODELS[0].labels))
    )


def test_the_events_of_everyday_sounds_are_in_a_table():
    analysis = dataclasses.replace(answer(BIG, "clip.wav", "Grad-CAM++", None), timeline=many())
    assert "<table>" in events_table(analysis) or "No events" in events_table(analysis)
    assert events_table(analysis) in answer_html(analysis, BIG)
    quiet = dataclasses.replace(
        analysis, report=dataclasses.replace(analysis.report, events=()), model=BIG
    )
    assert "at no point in this recording was a label probable enough" in events_table(quiet)
    single = dataclasses.replace(analysis, timeline=of_rows(np.zeros((1, 527)), BIG.labels))
    assert "xai-events" not in answer_html(single, BIG)


@pytest.mark.browser
def test_a_searched_label_gets_a_lane_and_the_timeline_zooms(browser, monkeypatch, tone):
    from xai_demo.settings import Settings
    from xai_demo.tabs import build
    from xai_demo.tabs.server import serve

    fake = FakeAnalyser()
    plain = fake.analyse

    def analyse(request, path, **options):
        return dataclasses.replace(
            plain(request, path, **options), timeline=of_rows(many().probabilities[:, :8], SOME)
        )

    some = MODELS[3].labels
    SOME = some
    monkeypatch.setattr(fake, "analyse", analyse)
    app = serve(build(fake), Settings.from_env({}))
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(app.local_url)
        page.get_by_role("tab", name="Everyday sounds").click()
        page.click("#audioset-example-dog")
        page.wait_for_selector("#audioset-result .xai-find input")
        page.fill("#audioset-result .xai-find input", "Sneeze")
        lane = page.locator('#audioset-result [data-lane="7"] path')
        lane.wait_for(state="attached")
        path = lane.get_attribute("d")
        assert path.startswith("M0.0 100V100.0H")
        assert path.count("M") == 10
        page.fill("#audioset-result .xai-find input", "Sneeze")  # a second time: not twice
        assert page.locator('#audioset-result [data-lane="7"]').count() == 1
        assert page.input_value("#audioset-result .xai-find input") == "Sneeze"
        wide = "document.querySelector('#audioset-result .xai-zoomed .xai-wave').clientWidth"
        before = page.evaluate(wide)
        page.locator("#audioset-result [data-zoom]").press("End")
        assert page.evaluate(wide) == pytest.approx(16 * before, rel=0.01)
        inside = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        assert page.evaluate(inside)
    finally:
        context.close()
        app.close(verbose=False)
