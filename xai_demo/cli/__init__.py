"""The command line: parse, call, print.

Exit status: 0 done, 2 the request or the file is at fault, 3 weights cannot be had, 1 the rest.
A command yields the lines of its answer; they are all that comes on stdout.
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
from xai_demo.cli import analyse, bench, release, training
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import RequestError, WeightsError, XaiDemoError
from xai_demo.export import (
    evaluation_text,
    metrics_table,
    model_text,
    report_text,
)
from xai_demo.hub import Hub
from xai_demo.records import DISCLAIMER, Progress
from xai_demo.settings import Settings, disable_telemetry

Command = Callable[[argparse.Namespace, Settings], Iterator[str]]

_log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; what went wrong is one line on stderr."""
    disable_telemetry()
    logging.captureWarnings(True)  # libraries' warnings are not this line
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper):
        out.reconfigure(errors="replace")  # a terminal without block characters gets a "?"
    try:
        arguments = _parser().parse_args(argv)
        with contextlib.redirect_stdout(sys.stderr):  # where libraries may print
            for text in arguments.run(arguments, Settings.from_env()):
                print(text, file=out, flush=True)
    except XaiDemoError as error:
        return _failed(str(error), error.exit_status)
    except SystemExit as stop:  # argparse, after --help and --version
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return _failed("Stopped.", 1)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1
    except Exception as error:
        _log.debug("Unexpected", exc_info=True)
        return _failed(f"Unexpected: {type(error).__name__}: {error}", 1)
    return 0


def _failed(sentence: str, status: int) -> int:
    print("xai_demo: " + " ".join(sentence.split()), file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """Faults are raised, to be one line as every other fault."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{message} (see `{self.prog} --help`)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m xai_demo", description=f"Explainable AI. {DISCLAIMER}")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(run: Command, name: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        added.set_defaults(run=run)
        return added

    models = command(_models, "models")
    _add_json(models)
    models.add_argument("--table", action="store_true", help="measured figures, as Markdown")
    _add_json(command(_explainers, "explainers"))
    bench.add_bench(command(_bench, "bench"))
    analyse.add_analyse(command(_analyse, "analyse"))
    fetch = command(_fetch, "fetch")
    fetch.add_argument("models", nargs="*", metavar="MODEL")
    fetch.add_argument("--all", action="store_true", help="every model of the catalogue")
    selftest = command(_selftest, "selftest")
    selftest.add_argument("models", nargs="*", metavar="MODEL", help="default: all that are here")
    selftest.add_argument("--clip", type=Path, metavar="FILE", help="the makers' example clip")
    selftest.add_argument("--backend", choices=BACKENDS, default="auto")
    selftest.add_argument("--write", action="store_true", help="store what is answered now")
    _add_json(selftest)
    export = command(_export, "export")
    export.add_argument("model", metavar="MODEL")
    export.add_argument("--out", type=Path, metavar="DIR", help="default: beside the weights")
    training.add_train(command(_train, "train"))
    training.add_ablate(command(_ablate, "ablate"))
    training.add_compare(command(_compare, "compare"))
    evaluate = command(_evaluate, "evaluate")
    evaluate.add_argument("model", metavar="MODEL")
    evaluate.add_argument("--data", type=Path, required=True, metavar="DIR")
    evaluate.add_argument("--write-card", action="store_true", help="write the figures in its card")
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="write JSON and pictures")
    _add_json(evaluate)
    training.add_cross_validate(command(_cross_validate, "cross-validate"))
    training.add_evaluate_gate(command(_evaluate_gate, "evaluate-gate"))
    trust = command(_evaluate_explainers, "evaluate-explainers")
    trust.add_argument("model", metavar="MODEL")
    trust.add_argument("--data", type=Path, required=True, metavar="DIR")
    trust.add_argument("--most", type=int, default=24, metavar="N", help="samples, one a person")
    trust.add_argument("--explainer", action="append", default=[], metavar="NAME")
    trust.add_argument("--out", type=Path, metavar="DIR", help="write tables and JSON")
    trust.add_argument("--write-card", action="store_true", help="write the tables in its card")
    _add_json(trust)
    release.add_publish(command(_publish, "publish"))
    release.add_deploy(command(_deploy, "deploy"))
    serve = command(_serve, "serve")
    serve.add_argument("--host", default=None, help="default: this machine only")
    serve.add_argument("--port", type=int, default=None, help="default: the first free from 7860")
    command(_synthesise, "synthesise").add_argument("out", type=Path, metavar="DIR")
    return parser


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _models(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """list every model"""
    hub = Hub(settings)
    rows = [hub.describe(name) for name in hub.names()]
    if arguments.table:
        yield metrics_table(rows)
        return
    yield _json(rows) if arguments.json else "\n".join(map(model_text, rows))


def _explainers(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """list every explainer"""
    rows = explainers.describe(Hub(settings).kinds())
    if arguments.json:
        yield _json(rows)
        return
    for row in rows:
        yield f"{row['name']:<20} needs {row['needs']}; fits {', '.join(row['fits'])}"


def _analyse(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """answer for one file, and show where the network looked"""
    from xai_demo.analysis import Analyser

    with _progress() as progress:
        analysis, more = analyse.analyse_file(arguments, Analyser(settings), progress)
    written: tuple[Path, ...] = ()
    if arguments.out:
        from xai_demo.export import write

        written = write(analysis, arguments.out, more)
    if arguments.json:
        yield _json(analysis.report.to_json() | more)
        return
    yield report_text(analysis.report)
    yield from (each["sentence"] for each in more.values())
    yield from (f"Wrote {path}" for path in written)


def _fetch(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """bring and verify checkpoints"""
    from xai_demo.analysis import selftest

    if arguments.all == bool(arguments.models):
        raise RequestError("fetch wants the names of models, or --all")
    hub = Hub(settings)
    for name in arguments.models:
        hub.entry(name)  # a typing error shows before any megabyte moves
    failures = []
    for name in hub.names() if arguments.all else arguments.models:
        try:
            with _progress() as progress:
                located = hub.fetch_weights(name, progress=progress, close_open_pin=True)
        except WeightsError as error:  # the others may still be had
            failures.append(error)
            continue
        yield f"{name}: {located.source}, {located.path}\n  sha256 {located.sha256}"
        if hub.entry(name).has_open_pin and located.revision:
            yield f"  revision {located.revision}, to be pinned in the catalogue"
        known, faults = selftest.after_fetch(name, settings)
        yield from known
        failures += faults
    if failures:
        raise type(failures[0])(" ".join(map(str, failures)))


def _selftest(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """check models against stored and published answers"""
    from xai_demo.analysis import selftest

    if arguments.write:
        yield from (f"Wrote {path}" for path in selftest.store(arguments.models, settings))
        return
    results, notes = selftest.results(
        arguments.models, settings, clip=arguments.clip, backend=arguments.backend
    )
    if arguments.json:
        yield _json(selftest.as_json(results))
    else:
        yield from [each.sentence for each in results if each.passed] + notes
    selftest.settle(results)


def _export(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """write the ONNX backbone, checked against torch"""
    from xai_demo.analysis import Analyser

    path = Analyser(settings).engine.export(arguments.model, arguments.out)
    yield f"Wrote {path}"


def _train(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """train a model from a recipe"""
    from xai_demo.training.train import train_model

    with _progress() as progress:
        path = train_model(
            arguments.recipe,
            data=arguments.data,
            out=arguments.out,
            epochs=arguments.epochs,
            seed=arguments.seed,
            resume=arguments.resume,
            patience=arguments.patience,
            track=arguments.track,
            balance=arguments.balance,
            settings=settings,
            progress=progress,
            notice=_notice,
        )
    yield f"Wrote {path}"


def _evaluate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure a model on its test data"""
    from xai_demo.training.evaluate import evaluate_model
    from xai_demo.training.model_card import write_card

    with _progress() as progress:
        result = evaluate_model(
            arguments.model,
            settings=settings,
            data=arguments.data,
            out=arguments.out,
            progress=progress,
        )
    for note in result.get("notes", ()):
        _notice(note)
    if arguments.write_card:
        write_card(arguments.model, settings=settings, result=result)
    yield _json(result) if arguments.json else evaluation_text(result)


def _cross_validate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure by folds: trained anew for each or, of lung models, the last layer refitted"""
    from xai_demo.training import cross_validation, model_card

    with _progress() as progress:
        result = cross_validation.cross_validate(
            arguments.model,
            settings=settings,
            data=arguments.data,
            folds=arguments.folds,
            seeds=arguments.seeds,
            out=arguments.out,
            epochs=arguments.epochs,
            balance=arguments.balance,
            progress=progress,
        )
    for note in result["notes"]:
        _notice(note)
    if arguments.write_card:
        model_card.write_folds(settings.weights_dir / arguments.model, result)
    yield _json(result) if arguments.json else cross_validation.table(result)


def _evaluate_gate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure how many films the gate lets through, and how much else it stops"""
    with _progress() as progress:
        result, text = training.gate_measured(arguments, settings, progress)
    yield _json(result) if arguments.json else text


def _evaluate_explainers(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure on a data set how far each explainer can be believed"""
    from xai_demo.training import explainer_eval, explainer_report, model_card

    with _progress() as progress:
        result = explainer_eval.evaluate_explainers(
            arguments.model,
            settings=settings,
            data=arguments.data,
            most=arguments.most,
            only=arguments.explainer,
            progress=progress,
        )
    written = explainer_eval.write(arguments.out, result) if arguments.out else ()
    if arguments.write_card:
        written += (model_card.write_explainers(settings.weights_dir / arguments.model, result),)
    yield _json(result) if arguments.json else explainer_report.table(result)
    if not arguments.json:
        yield from (f"Wrote {path}" for path in written)


def _ablate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """compare choices of training by folds, within a small budget"""
    with _progress() as progress:
        result, text = training.ablated(arguments, settings, progress)
    yield _json(result) if arguments.json else text


def _compare(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """test whether two runs over the same folds differ by more than chance"""
    result, text = training.compared(arguments)
    yield _json(result) if arguments.json else text


def _bench(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure the ratios of the README's performance section"""
    with _progress() as progress:
        result, table = bench.measured(arguments, settings, progress)
    yield _json(result) if arguments.json else table


def _publish(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """write a model directory to the Hub, with its card"""
    yield from release.published(arguments, settings)


def _deploy(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """write the files that the Space needs to the Hub"""
    yield from release.deployed(arguments)


def _serve(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """serve the page, as app.py does"""
    from xai_demo.tabs.server import launch

    yield from ()  # nothing to say: the server prints its own address
    chosen = {"host": arguments.host, "port": arguments.port}
    launch(settings, **{name: value for name, value in chosen.items() if value is not None})


def _synthesise(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """make the page's examples anew"""
    from xai_demo.synthesis import write_examples

    write_examples(arguments.out)
    yield f"Wrote the examples to {arguments.out}"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, allow_nan=False)


def _notice(note: str) -> None:
    """One line on stderr: what of the data was left out."""
    print(f"Note: {note}", file=sys.stderr)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A bar on stderr where a person watches; nothing in a pipe or a log."""
    if not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=1.0, leave=False, bar_format="{percentage:3.0f}% |{bar}| {desc}") as bar:

        def show(fraction: float, what: str) -> None:
            bar.set_description_str(what, refresh=False)
            bar.n = min(max(fraction, 0.0), 1.0)
            bar.refresh()

        yield show
