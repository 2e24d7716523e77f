"""What the tests share: the page on a fake analyser, the real app, and a real browser."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.fake_analyser import FakeAnalyser, write_film, write_tone

if TYPE_CHECKING:
    import gradio as gr
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.support.fake_hub import HubServer
    from xai_demo.analysis import Analyser
    from xai_demo.records import Model

_GPU = Path("/dev/nvidiactl")  # CUDA's driver is here where this is
PATIENCE_MS = 180_000
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


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty cache: what was fetched on this machine must not change who answers."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "home", staticmethod(lambda: home))
        # For the programs that tests start.
        patch.setenv("XAI_DEMO_CACHE", str(home / "cache"))
        patch.setenv("XAI_DEMO_FETCH", "off")
        yield


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a browser test that failed what its pages showed."""
    report = yield
    if report.when == "call" and report.failed:
        arguments = getattr(item, "funcargs", {})
        for name in ("page", "visitor"):
            if name in arguments:
                report.sections.append((f"what `{name}` shows", _visible_state(arguments[name])))
    return report


def _visible_state(page: Page) -> str:
    """The visible text, the values of the boxes, and the errors that Gradio shows as toasts."""
    try:
        boxes = page.evaluate(
            """() => [...document.querySelectorAll("input, textarea, [data-state], .toast-body")]
            .filter((part) => part.offsetParent)
            .map((part) => `${part.tagName} ${part.id} ${part.dataset.state ?? part.value ?? ""}`
              + (part.classList.contains("toast-body") ? part.innerText : ""))"""
        )
        resources = page.evaluate(
            """() => performance.getEntriesByType("resource").slice(-12)
            .map((entry) => `${entry.name.split("?")[0]} ${entry.responseStatus}`)"""
        )
        return "\n".join([page.url, *boxes, page.inner_text("body")[:4000], *resources])
    # The page may be closed, or its browser gone: then that is what there is to say.
    except Exception as error:
        return f"The page cannot be read: {error}"


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
    from xai_demo.analysis import Analyser
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


def visiting(browser: Browser, **options: Any) -> BrowserContext:
    """A visitor's own browser, who waits long enough for a slow and busy machine."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context


def came(page: Page, true: Callable[[], bool]) -> bool:
    """Whether it comes true while the page is waited for."""
    for _ in range(PATIENCE_MS // 50):
        if true():
            return True
        page.wait_for_timeout(50)
    return False


@pytest.fixture
def page(browser: Browser, served: gr.Blocks) -> Iterator[Page]:
    """A fresh visitor on the page that the fake answers."""
    context = visiting(browser, viewport={"width": 1280, "height": 900})
    visitor = context.new_page()
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


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model directory whose weights, 45 MB, do not come in one piece."""
    from tests.support.small_models import RASTER, model_of, write_model

    directory = tmp_path_factory.mktemp("large") / "large"
    model = model_of("resnet18", name="large", normal_label="normal", preprocessing=RASTER)
    return write_model(directory, model), directory


@pytest.fixture
def hub_server(large: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub on this machine that has `large`, and a client that may ask it."""
    import huggingface_hub
    import huggingface_hub.constants

    from tests.support.fake_hub import serve_hub

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        for name in ("config.json", "model.safetensors"):
            hub_server.put(name, (large[1] / name).read_bytes())
        yield hub_server
    huggingface_hub.close_session()


@pytest.fixture
def fetching(large: tuple[Model, Path], hub_server: HubServer, tmp_path: Path) -> Analyser:
    """An analyser that finds the model "large" on that Hub, and nothing in its own cache."""
    from tests.support.fake_hub import COMMIT
    from xai_demo.analysis import Analyser
    from xai_demo.catalog import MODELS, Entry
    from xai_demo.catalog.sources import Checkpoint
    from xai_demo.engine import Engine
    from xai_demo.hub import Hub
    from xai_demo.settings import Settings

    settings = dataclasses.replace(
        Settings.from_env({}), cache_dir=tmp_path / "cache", background_export=False
    )
    place = Checkpoint(
        repo_id="owner/name",
        filename="model.safetensors",
        revision=COMMIT,
        sha256=large[0].sha256,
    )
    entry = Entry(task="chest_xray", model=large[0], checkpoint=place)
    made = Analyser(settings)
    made.hub = Hub(settings, catalog=MODELS | {"large": entry}, endpoint=hub_server.url)
    made.engine = Engine(made.hub)
    return made
