"""The demo's entry point: `python app.py`, and what a Hugging Face Space runs."""

import sys

from xai_demo.errors import XaiDemoError
from xai_demo.settings import Settings, disable_telemetry

if __name__ == "__main__":
    disable_telemetry()  # before anything is imported that would report its use
    from xai_demo.tabs.server import launch

    try:
        launch(Settings.from_env())
    except XaiDemoError as error:
        # One sentence: a port that is taken, or a setting that is not allowed.
        sys.exit(str(error))
