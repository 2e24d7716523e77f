"""The demo's entry point: `python app.py`, and what a Hugging Face Space runs."""

import logging

from xai_demo.settings import Settings, disable_telemetry

if __name__ == "__main__":
    disable_telemetry()  # before anything is imported that would report its use
    from xai_demo.tabs.server import launch

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    launch(Settings.from_env())
