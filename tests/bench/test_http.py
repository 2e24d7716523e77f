"""What a request costs besides the network: the sums by hand, and the calls themselves."""

from __future__ import annotations

import json

import httpx2
import pytest

from xai_demo.bench import http as http_bench
from xai_demo.bench.http import PARTS, Measurement
from xai_demo.errors import XaiDemoError

CLIENT_TIMING = {
    "read": 4.0,
    "prepare": 1.0,
    "gate": 2.0,
    "predict": 20.0,
    "uncertainty": 40.0,
    "explain": 5.0,
    "faithfulness": 70.0,
    "render": 0.5,
}
CALL_TIMING = CLIENT_TIMING | {"read": 3.0, "predict": 22.0}


def a_measurement(**changes) -> Measurement:
    values = {
        "forward": 40.0,
        "client": 340.0,
        "client_timing": CLIENT_TIMING,
        "upload": 6.0,
        "call": 200.0,
        "call_timing": CALL_TIMING,
        "download": 3.0,
        "empty": 10.0,
        "client_empty": 70.0,
    }
    return Measurement(**(values | changes))


def test_the_parts_add_up_to_everything_but_the_network():
    one = a_measurement()
    assert one.network == 135
    assert one.rest == 205
    assert one.plain == 6 + 200 + 3 - 137
    assert one.ours == 200 - 137 - 10
    parts = one.parts()
    assert list(parts) == list(PARTS)
    assert parts == pytest.approx(
        {
            "upload": 6,
            "queue": 10,
            "read": 3,
            "gate": 2,
            "prepare": 1,
            "render": 0.5,
            "respond": 200 - 143.5 - 10,
            "download": 3,
            "client": 205 - 72,
        }
    )
    assert sum(parts.values()) == pytest.approx(one.rest)


def test_steps_that_were_not_taken_cost_nothing():
    short = {"read": 3.0, "prepare": 1.0, "predict": 20.0}
    one = a_measurement(client_timing=short, call_timing=short)
    assert one.network == 20
    assert sum(one.parts().values()) == pytest.approx(one.rest)


def test_figures_are_medians_and_ratios_to_the_forward_pass():
    result = http_bench.figures(
        [a_measurement(), a_measurement(client=360.0), a_measurement(client=9999.0, forward=50.0)]
    )
    assert result["rounds"] == 3
    assert result["forward_ms"] == 40
    assert result["totals_ms"] == pytest.approx(
        {
            "network": 135,
            "rest": 225,
            "rest_plain_http": 72,
            "rest_ours": 53,
            "empty_http": 10,
            "empty_client": 70,
            "rest_command_line": 6.5,
        }
    )
    assert result["ratios"]["rest_plain_http"] == pytest.approx(1.8)
    assert result["parts"]["upload"] == pytest.approx(0.15)


def test_the_table_has_a_line_for_each_part_and_total():
    lines = http_bench.table(http_bench.figures([a_measurement()])).splitlines()
    assert lines[0] == "| part of a request | ms | of a ResNet-50 |"
    assert [line.split(":")[0] for line in lines[2:11]] == [f"| {name}" for name in PARTS]
    assert lines[2].endswith("| 6.0 | 0.15x |")
    assert any("Gradio client**" in line and "| 205.0 | 5.12x |" in line for line in lines)
    assert "a ResNet-50 at 224x224 takes 40 ms" in lines[-1]


def server(stream: str) -> httpx2.Client:
    """A client of a page that answers every call with this stream of events."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            assert json.loads(request.content) == {"data": [1]}
            return httpx2.Response(200, json={"event_id": "e1"})
        assert request.url.path == "/call/name/e1"
        return httpx2.Response(200, text=stream)

    return httpx2.Client(transport=httpx2.MockTransport(answer), base_url="http://page/")


def test_a_call_returns_the_complete_event():
    stream = (
        "event: generating\ndata: [0]\n\nevent: heartbeat\ndata: null\n\n"
        'event: complete\ndata: [{"a": 1}, 2]\n\n'
    )
    with server(stream) as http:
        assert http_bench._call(http, "name", [1]) == [{"a": 1}, 2]


def test_the_arguments_after_the_file_have_the_pages_defaults(monkeypatch):
    def get(url, **options):
        assert url == "http://page/gradio_api/info"
        parameters = [
            {"parameter_name": "image", "parameter_has_default": False},
            {"parameter_name": "model", "parameter_default": None},
            {"parameter_name": "strict", "parameter_default": True},
        ]
        info = {"named_endpoints": {"/chest_xray": {"parameters": parameters}}}
        return httpx2.Response(200, json=info, request=httpx2.Request("GET", url))

    monkeypatch.setattr(httpx2, "get", get)
    assert http_bench._default_arguments("http://page") == [None, True]


@pytest.mark.parametrize(
    ("stream", "met"), [("event: error\ndata: null\n\n", "error"), ("", "nothing")]
)
def test_a_call_without_a_result_names_the_event(stream, met):
    with (
        server(stream) as http,
        pytest.raises(XaiDemoError, match=f"/name with {met}; expected the event"),
    ):
        http_bench._call(http, "name", [1])


def test_a_page_that_exits_at_once_is_reported(monkeypatch):
    monkeypatch.setattr(http_bench.sys, "executable", "/bin/false")
    with (
        pytest.raises(XaiDemoError, match=r"did not answer .*exit status 1"),
        http_bench.serve_page(),
    ):
        raise AssertionError("it does not answer")


def test_the_unit_of_comparison_is_a_resnet50():
    assert tuple(http_bench._resnet50()().shape) == (1, 14)
