"""What the tests share: the page on a fake analyser, the real app, and a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import FakeAnalyser, write_film, write_tone

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, Page

_GPU = Path("/dev/nvidiactl")  # CUDA's driver is here where this is
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Takes rows out of a table for one test; then it is as it was, its order included."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def take(table: dict[str, Any], *names: str) -> None:
        before.append((table, dict(table)))
        for name in names:
            del table[name]

    yield take
    monkeypatch.undo()  # what was put into a table meanwhile goes first
    for table, rows in reversed(before):
        table.clear()
        table.update(rows)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-browser",
        action="store_true",
        help="fail, rather than skip, the browser tests where no Chromium is installed",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a GPU where the machine has none."""
    if _GPU.exists():
        return
    left_out = [item for item in items if item.get_closest_marker("gpu")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def analyser() -> FakeAnalyser:
    """The analyser behind `served`; `calls` tells what it was asked."""
    return FakeAnalyser()


@pytest.fixture(scope="session")
def served(analyser: FakeAnalyser) -> Iterator[gr.Blocks]:
    """The page on a free port, answered by the fake."""
    from xai_demo.settings import Settings
    from xai_demo.tabs import build
    from xai_demo.tabs.server import serve

    page = serve(build(analyser), Settings.from_env({"XAI_DEMO_MAX_UPLOAD_MB": "5"}))
    yield page
    page.close(verbose=False)


@pytest.fixture(scope="session")
def real_app() -> Iterator[gr.Blocks]:
    """The app as a visitor meets it, with the models that ship with it."""
    from xai_demo.pipeline import Analyser
    from xai_demo.settings import Settings
    from xai_demo.tabs import build
    from xai_demo.tabs.server import serve

    settings = Settings.from_env({"HF_HUB_OFFLINE": "1", "XAI_DEMO_EXPORT": "off"})
    page = serve(build(Analyser(settings)), settings)
    yield page
    page.close(verbose=False)


@pytest.fixture(scope="session")
def browser(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """The system's Chromium, whose microphone plays a file."""
    path = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if path is None:
        missing = f"No Chromium here, wanted: one of {', '.join(_BROWSERS)} on the PATH."
        if request.config.getoption("--require-browser"):
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    speech = write_tone(tmp_path_factory.mktemp("microphone") / "tone.wav", seconds=3, rate=48000)
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={speech}",
        "--autoplay-policy=no-user-gesture-required",
    ]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser, served: gr.Blocks) -> Iterator[Page]:
    """A fresh visitor on the page that the fake answers."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    visitor = context.new_page()
    visitor.set_default_timeout(20_000)
    visitor.goto(served.local_url)
    visitor.wait_for_selector("#stethoscope-analyse")
    yield visitor
    context.close()


@pytest.fixture
def tone(tmp_path: Path) -> Path:
    """A second of 440 Hz."""
    return write_tone(tmp_path / "tone.wav")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A picture of 512 x 512 grey pixels."""
    return write_film(tmp_path / "film.png")
