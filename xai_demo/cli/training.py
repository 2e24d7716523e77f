"""The commands that train and measure models: their options, and what they print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.cli import add_json, json_text, print_note, progress_bar
from xai_demo.errors import RequestError
from xai_demo.files import write_atomically
from xai_demo.records import AUTO_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xai_demo.records import Progress
    from xai_demo.settings import Settings

# The names of `training.class_imbalance`, `training.ablation` and `explainers`: literals, because
# importing those would load torch for every `--help`.
BALANCES = ("none", "weights", "focal", "oversampling", "smote")
TABLES = (
    "folds", "architectures", "augmentation", "balance", "bodies", "shortcut", "sources",
    "explainers",
)  # fmt: skip
EXPLAINERS = ("Grad-CAM", "CAM", "Guided backpropagation")


def add_train(command: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    command.add_argument("recipe", metavar="RECIPE")
    _add_data(command)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="model directory")
    command.add_argument("--resume", action="store_true", help="continue a run that was stopped")
    command.add_argument("--epochs", type=int, default=None, help="default: as in the recipe")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without an improvement"
    )
    command.add_argument("--track", choices=("csv", "wandb"), default="csv")
    _add_balance(command)


def train(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """train a model from a recipe"""
    from xai_demo.training.train import train_model

    with progress_bar() as progress:
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
            notice=print_note,
        )
    yield f"Wrote {path}"


def add_evaluate(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    command.add_argument(
        "model", metavar="MODEL", help="`auto`: the networks that fit the patients of radiographs"
    )
    _add_data(command)
    command.add_argument(
        "--most", type=int, metavar="N", help="auto: films of each collection; default: all"
    )
    command.add_argument("--write-card", action="store_true", help="put the figures in its card")
    command.add_argument("--out", type=Path, metavar="DIR", help="write JSON and plots")
    add_json(command)


def evaluate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure a model on its test data"""
    from xai_demo.export import evaluation_text
    from xai_demo.training.datasets.archive import unpack_dataset
    from xai_demo.training.evaluate import evaluate_model
    from xai_demo.training.model_card import write_card

    if arguments.model == AUTO_MODEL:
        from xai_demo.training import auto_eval

        with unpack_dataset(arguments.data) as data, progress_bar() as progress:
            found = auto_eval.evaluate_auto(
                data, settings=settings, most=arguments.most, progress=progress
            )
        yield json_text(found) if arguments.json else auto_eval.table(found)
        return
    with unpack_dataset(arguments.data) as data, progress_bar() as progress:
        result = evaluate_model(
            arguments.model,
            settings=settings,
            data=data,
            out=arguments.out,
            progress=progress,
        )
    # On stderr, so that stdout holds nothing but the result.
    for note in result.get("notes", ()):
        print_note(note)
    if arguments.write_card:
        write_card(arguments.model, settings=settings, result=result)
    yield json_text(result) if arguments.json else evaluation_text(result)


def add_cross_validate(command: argparse.ArgumentParser) -> None:
    """The options of `cross-validate`."""
    command.add_argument("model", metavar="MODEL")
    _add_data(command)
    command.add_argument("--folds", type=int, help="default: the published ones, else 5")
    command.add_argument("--seeds", type=int, help="default: 1 where networks are trained, else 3")
    command.add_argument(
        "--epochs", type=int, help="where networks are trained; default: as in the recipe"
    )
    _add_balance(command)
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write JSON, and checkpoints to resume from"
    )
    command.add_argument("--write-card", action="store_true", help="put the figures in its card")
    add_json(command)


def cross_validate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """cross-validate a model: train it again for each fold; lung models refit the last layer"""
    from xai_demo.training import cross_validation, model_card

    with progress_bar() as progress:
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
        print_note(note)
    if arguments.write_card:
        model_card.write_folds(settings.weights_dir / arguments.model, result)
    yield json_text(result) if arguments.json else cross_validation.table(result)


def add_evaluate_gate(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate-gate`."""
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="radiographs")
    command.add_argument(
        "--others", type=Path, metavar="DIR", help="other images, one folder for each kind"
    )
    command.add_argument(
        "--sounds", type=Path, metavar="DIR", help="sounds, to be tried as spectrograms"
    )
    command.add_argument(
        "--most", type=int, metavar="N", help="radiographs from each folder; default: all"
    )
    # The default is that of `gate_eval.ImageFolders`.
    command.add_argument(
        "--turned",
        type=int,
        default=100,
        metavar="N",
        help="of these, also tried rotated and inverted",
    )
    add_json(command)


def evaluate_gate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure how many radiographs the input check accepts, and how many other images it stops"""
    from xai_demo.training import gate_eval

    folders = gate_eval.ImageFolders(
        radiographs=arguments.data,
        others=arguments.others,
        sounds=arguments.sounds,
        most=arguments.most,
        turned=arguments.turned,
    )
    with progress_bar() as progress:
        result = gate_eval.evaluate_gate(folders, settings=settings, progress=progress)
    yield json_text(result) if arguments.json else gate_eval.table(result)


def add_evaluate_explainers(command: argparse.ArgumentParser) -> None:
    """The options of `evaluate-explainers`."""
    command.add_argument("model", metavar="MODEL")
    _add_data(command)
    # The default is `explainer_eval.MOST`, which cannot be imported here without torch.
    command.add_argument(
        "--most", type=int, default=24, metavar="N", help="test samples, one per patient"
    )
    command.add_argument(
        "--explainer", action="append", default=[], metavar="NAME", help="default: all that fit"
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="write tables and JSON")
    command.add_argument("--write-card", action="store_true", help="put the tables in its card")
    add_json(command)


def evaluate_explainers(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure on a data set how far each explainer can be trusted"""
    from xai_demo.training import explainer_eval, explainer_report, model_card

    with progress_bar() as progress:
        result = explainer_eval.evaluate_explainers(
            arguments.model,
            settings=settings,
            data=arguments.data,
            most=arguments.most,
            only=arguments.explainer,
            progress=progress,
        )
    paths = explainer_eval.write(arguments.out, result) if arguments.out else ()
    if arguments.write_card:
        paths += (model_card.write_explainers(settings.weights_dir / arguments.model, result),)
    yield json_text(result) if arguments.json else explainer_report.table(result)
    if not arguments.json:
        yield from (f"Wrote {path}" for path in paths)


def add_ablate(command: argparse.ArgumentParser) -> None:
    """The options of `ablate`."""
    command.add_argument("recipe", metavar="RECIPE")
    _add_data(command)
    command.add_argument(
        "--table", action="append", default=[], choices=TABLES, help="default: all that apply"
    )
    command.add_argument("--epochs", type=int, default=2)
    command.add_argument("--most", type=int, default=240, metavar="N", help="training samples")
    command.add_argument("--folds", type=int, default=3)
    command.add_argument("--side", type=int, default=64, metavar="PIXELS", help="of the images")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, metavar="FILE", help="write JSON")
    add_json(command)


def ablate(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """compare choices of training by cross-validation, on a small budget"""
    from xai_demo.training import ablation

    # The comparison of explainers needs no training, so it is not one of the ablation's tables.
    tables = [name for name in arguments.table if name != "explainers"]
    budget = ablation.Budget(
        epochs=arguments.epochs,
        most=arguments.most,
        folds=arguments.folds,
        side=arguments.side,
        seed=arguments.seed,
    )
    result: dict[str, Any] = {}
    texts = []
    with progress_bar() as progress:
        # Nothing is trained where only explainers are to be compared.
        if tables or not arguments.table:
            result = ablation.ablate(
                arguments.recipe,
                data=arguments.data,
                tables=tables,
                budget=budget,
                progress=progress,
            )
            texts.append(ablation.table(result))
        if "explainers" in arguments.table or not arguments.table:
            result["explainers"], text = _compare_explainers(arguments, settings, progress)
            texts.append(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(arguments.out, json_text(result) + "\n")
    yield json_text(result) if arguments.json else "\n\n".join(texts)


def _compare_explainers(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any] | None, str]:
    """The table of `EXPLAINERS`, as JSON values and as text.

    It is measured on the weights that ship with the model: those of an ablation's small budget are
    too poor for their heatmaps to mean anything. Where they are not installed and no table was
    chosen, the values are None and the text says why.
    """
    from xai_demo import explainers, networks
    from xai_demo.hub import Hub
    from xai_demo.training import explainer_eval, explainer_report

    name, hub = arguments.recipe, Hub(settings)
    # An explicit `--table explainers` goes on and fails with the reason.
    if not arguments.table and not (name in hub.names() and hub.is_available(name)):
        return None, (
            f"Explainers were not compared: the weights of {name} are not installed in"
            f" {settings.weights_dir}; `fetch {name}` or `train {name}` provides them."
        )
    fitting = explainers.fitting_names(networks.architecture(hub.model(name)).kind)
    result = explainer_eval.evaluate_explainers(
        name,
        settings=settings,
        data=arguments.data,
        # `--most` counts training samples here, and explaining one costs far more than training.
        most=min(arguments.most, explainer_eval.MOST),
        only=[each for each in EXPLAINERS if each in fitting],
        progress=progress,
    )
    # Named, so that a missing row is not taken for a forgotten one.
    unsuitable = [each for each in EXPLAINERS if each not in fitting]
    note = f"\n\nNot suitable for this network: {', '.join(unsuitable)}." if unsuitable else ""
    return result, explainer_report.table(result) + note


def add_compare(command: argparse.ArgumentParser) -> None:
    """The options of `compare`."""
    command.add_argument("one", type=Path, metavar="ONE.json")
    command.add_argument("other", type=Path, metavar="OTHER.json")
    add_json(command)


def compare(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """test whether two runs over the same folds differ by more than chance"""
    from xai_demo.training import fold_metrics

    result = fold_metrics.compare_runs(_read_run(arguments.one), _read_run(arguments.other))
    if arguments.json:
        yield json_text(result)
        return
    yield "| figure | difference | t | p |\n| --- | --- | --- | --- |"
    for name, row in result.items():
        # t and p are None for a single fold, and where all folds differ by the same amount.
        cells = ("not defined" if row[k] is None else f"{row[k]:.4g}" for k in row)
        yield f"| {name} | " + " | ".join(cells) + " |"


def _read_run(path: Path) -> dict[str, Any]:
    """What `cross-validate --json` wrote; raises RequestError."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read as JSON ({type(error).__name__}); expected the output of"
            " `cross-validate --json`."
        ) from error
    if not isinstance(run, dict):
        raise RequestError(
            f"{path} holds a {type(run).__name__}; expected the output of `cross-validate --json`."
        )
    return run


def _add_data(command: argparse.ArgumentParser) -> None:
    text = "the data set; for `evaluate`, its zip archive too"
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help=text)


def _add_balance(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--balance",
        choices=BALANCES,
        help="what to do about labels of unequal size; default: as in the recipe",
    )
