"""The command line: parse, run one command, print what it yields.

Exit status: 0 success, 2 a fault of the request or its file, 3 missing or wrong weights, 1 anything
else. A command is a generator of lines; only these go to stdout, everything else to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xai_demo import __version__, explainers
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import RequestError, WeightsError, XaiDemoError
from xai_demo.export import metrics_table, model_text, report_text
from xai_demo.hub import Hub
from xai_demo.records import DISCLAIMER, Progress
from xai_demo.settings import Settings, disable_telemetry

# The docstring of a command is its help.
Command = Callable[[argparse.Namespace, Settings], Iterator[str]]

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error is one line on stderr."""
    disable_telemetry()
    # Otherwise libraries would print their warnings on stderr, beside that line.
    logging.captureWarnings(True)
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        # A terminal that cannot show block characters gets a "?" instead of an error.
        out.reconfigure(errors="replace")
    try:
        arguments = _build_parser().parse_args(argv)
        # Some libraries print to stdout, which must hold the answer and nothing else.
        with contextlib.redirect_stdout(sys.stderr):
            for text in arguments.run(arguments, Settings.from_env()):
                # Flushed, so that each text appears when it is ready, also in a pipe.
                print(text, file=out, flush=True)
    except XaiDemoError as error:
        return _print_error(str(error), error.exit_status)
    except SystemExit as stop:
        # argparse exits by itself after --help and --version.
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _print_error("Stopped.", 1)
    # The reader, `head` for example, has closed the pipe.
    except BrokenPipeError:
        # Python flushes stdout when it exits, which would fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1
    except Exception as error:
        _log.debug("Unexpected error", exc_info=True)
        return _print_error(f"Unexpected error: {type(error).__name__}: {error}", 1)
    return 0


def _print_error(sentence: str, status: int) -> int:
    # A library's message may span several lines.
    print("xai_demo: " + " ".join(sentence.split()), file=sys.stderr)
    return status


# argparse makes the parsers of the commands from the same class.
class _Parser(argparse.ArgumentParser):
    """Raises errors, which argparse would print together with the usage, on several lines."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see `{self.prog} --help`)")


def _build_parser() -> argparse.ArgumentParser:
    # Here, because these modules import the functions below from this one.
    from xai_demo.cli import analyse, bench, refit, release, training

    parser = _Parser(prog="python -m xai_demo", description=f"Explainable AI. {DISCLAIMER}")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    # In the order of `--help`.
    table: dict[str, tuple[Command, Callable[[argparse.ArgumentParser], None]]] = {
        "models": (_models, _add_models),
        "explainers": (_explainers, add_json),
        "bench": (bench.bench, bench.add_bench),
        "analyse": (_analyse, analyse.add_analyse),
        "fetch": (_fetch, _add_fetch),
        "selftest": (_selftest, _add_selftest),
        "export": (_export, _add_export),
        "train": (training.train, training.add_train),
        "ablate": (training.ablate, training.add_ablate),
        "compare": (training.compare, training.add_compare),
        "evaluate": (training.evaluate, training.add_evaluate),
        "cross-validate": (training.cross_validate, training.add_cross_validate),
        "evaluate-gate": (training.evaluate_gate, training.add_evaluate_gate),
        "refit": (refit.refit, refit.add_refit),
        "evaluate-explainers": (training.evaluate_explainers, training.add_evaluate_explainers),
        "publish": (release.publish_model, release.add_publish),
        "deploy": (release.deploy_space, release.add_deploy),
        "serve": (_serve, _add_serve),
        "synthesise": (_synthesise, _add_synthesise),
    }
    for name, (run, add_arguments) in table.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        add_arguments(command)
    return parser


def add_json(command: argparse.ArgumentParser) -> None:
    """The option `--json`."""
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def json_text(value: Any) -> str:
    """Indented JSON; a NaN, which JSON does not have, raises ValueError."""
    return json.dumps(value, indent=2, allow_nan=False)


def print_note(note: str) -> None:
    """Print one line on stderr, for example what was left out of a data set."""
    print(f"Note: {note}", file=sys.stderr)


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A progress bar on stderr; None where that is not a terminal but a pipe or a log."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=1.0, leave=False, bar_format="{percentage:3.0f}% |{bar}| {desc}") as bar:

        def show(fraction: float, what: str) -> None:
            bar.set_description_str(what, refresh=False)
            # tqdm warns about a bar that is more than full, which rounding can cause.
            bar.n = min(max(fraction, 0.0), 1.0)
            bar.refresh()

        yield show


def _add_models(command: argparse.ArgumentParser) -> None:
    add_json(command)
    command.add_argument(
        "--table",
        nargs="?",
        const="full",
        choices=("full", "short"),
        help="print the measured figures as a Markdown table; short: accuracy and AUROC",
    )


def _models(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """list every model"""
    hub = Hub(settings)
    rows = [hub.describe(name) for name in hub.names()]
    if arguments.table:
        yield metrics_table(rows, short=arguments.table == "short")
        return
    yield json_text(rows) if arguments.json else "\n".join(map(model_text, rows))


def _explainers(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """list every explainer"""
    rows = explainers.describe(Hub(settings).kinds())
    if arguments.json:
        yield json_text(rows)
        return
    for row in rows:
        yield f"{row['name']:<20} needs {row['needs']}; fits {', '.join(row['fits'])}"


def _analyse(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """analyse one file, and show what the network relied on"""
    from xai_demo.analysis import Analyser
    from xai_demo.cli import analyse

    with progress_bar() as progress:
        analysis, more = analyse.analyse_file(arguments, Analyser(settings), progress)
    paths: tuple[Path, ...] = ()
    if arguments.out:
        from xai_demo.export import write

        paths = write(analysis, arguments.out, more)
    if arguments.json:
        yield json_text(analysis.report.to_json() | more)
        return
    yield report_text(analysis.report)
    yield from (each["sentence"] for each in more.values())
    yield from (f"Wrote {path}" for path in paths)


def _add_fetch(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="MODEL")
    command.add_argument("--all", action="store_true", help="every model of the catalogue")


def _fetch(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """download and verify checkpoints"""
    from xai_demo.analysis import selftest

    # Both or neither.
    if arguments.all == bool(arguments.models):
        raise RequestError("fetch needs the names of models, or --all")
    hub = Hub(settings)
    for name in arguments.models:
        # A misspelt name is reported before the first download, not after it.
        hub.entry(name)
    failures = []
    for name in hub.names() if arguments.all else arguments.models:
        try:
            with progress_bar() as progress:
                # Whoever fetches by hand may record the sha256 that later runs must find.
                weights = hub.fetch_weights(name, progress=progress, close_open_pin=True)
        except WeightsError as error:
            # The other models may still be downloaded; the first error decides the exit status.
            failures.append(error)
            continue
        yield f"{name}: {weights.source}, {weights.path}\n  sha256 {weights.sha256}"
        if hub.entry(name).has_open_pin and weights.revision:
            yield f"  revision {weights.revision}, to be pinned in the catalogue"
        # The sha256 proves the file; only an answer proves that it is read as it should be.
        notes, errors = selftest.check_after_fetch(name, settings)
        yield from notes
        failures += errors
    if failures:
        raise type(failures[0])(" ".join(map(str, failures)))


def _add_selftest(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", metavar="MODEL", help="default: all that are here")
    command.add_argument("--clip", type=Path, metavar="FILE", help="the authors' example clip")
    command.add_argument("--backend", choices=BACKENDS, default="auto")
    command.add_argument("--write", action="store_true", help="store the present answers")
    add_json(command)


def _selftest(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """check models against stored and published answers"""
    from xai_demo.analysis import selftest

    if arguments.write:
        yield from (f"Wrote {path}" for path in selftest.store_answers(arguments.models, settings))
        return
    results, notes = selftest.check_models(
        arguments.models, settings, clip=arguments.clip, backend=arguments.backend
    )
    if arguments.json:
        yield json_text(selftest.as_json(results))
    else:
        yield from [each.sentence for each in results if each.passed] + notes
    # Last, so that what passed is printed before the error.
    selftest.raise_for_failures(results)


def _add_export(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--out", type=Path, metavar="DIR", help="default: beside the weights")


def _export(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """export the backbone to ONNX, checked against PyTorch"""
    from xai_demo.analysis import Analyser

    path = Analyser(settings).engine.export(arguments.model, arguments.out)
    yield f"Wrote {path}"


def _add_serve(command: argparse.ArgumentParser) -> None:
    command.add_argument("--host", default=None, help="default: this machine only")
    command.add_argument("--port", type=int, default=None, help="default: the first free from 7860")


def _serve(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """serve the page, as app.py does"""
    from xai_demo.tabs.server import launch

    # A command is a generator, and this one has nothing to print: the server shows its address.
    yield from ()
    # Only what was given, because `launch` has the defaults.
    chosen = {"host": arguments.host, "port": arguments.port}
    launch(settings, **{name: value for name, value in chosen.items() if value is not None})


def _add_synthesise(command: argparse.ArgumentParser) -> None:
    command.add_argument("out", type=Path, metavar="DIR")


def _synthesise(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """generate the page's examples again"""
    from xai_demo.synthesis import write_examples

    write_examples(arguments.out)
    yield f"Wrote the examples to {arguments.out}"
