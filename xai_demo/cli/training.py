"""Lessons and measurements on the command line: what can be asked, and the answers."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import RequestError

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings

BALANCES = ("none", "weights", "focal", "oversampling", "smote")
TABLES = ("folds", "architectures", "augmentation", "balance", "shortcut", "explainers")
EXPLAINERS = ("Grad-CAM", "CAM", "Guided backpropagation")


def add_train(command: argparse.ArgumentParser) -> None:
    """The arguments of `train`."""
    command.add_argument("recipe", metavar="RECIPE")
    command.add_argument("--data", type=Path, required=True, metavar="DIR")
    command.add_argument("--out", type=Path, required=True, metavar="DIR")
    command.add_argument("--resume", action="store_true", help="go on where a run was stopped")
    command.add_argument("--epochs", type=int, default=None)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without a better validation"
    )
    command.add_argument("--track", choices=("csv", "wandb"), default="csv")
    _add_balance(command)


def add_cross_validate(command: argparse.ArgumentParser) -> None:
    """The arguments of `cross-validate`."""
    command.add_argument("model", metavar="MODEL")
    command.add_argument("--data", type=Path, required=True, metavar="DIR")
    command.add_argument("--folds", type=int, help="default: the published ones, else 5")
    command.add_argument("--seeds", type=int, help="default: 1 where networks are trained, else 3")
    command.add_argument("--epochs", type=int, help="where networks are trained; default: recipe's")
    _add_balance(command)
    command.add_argument("--out", type=Path, metavar="DIR", help="keep what can be gone on from")
    command.add_argument("--write-card", action="store_true", help="write the figures in its card")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_evaluate_gate(command: argparse.ArgumentParser) -> None:
    """The arguments of `evaluate-gate`."""
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="of radiographs")
    command.add_argument(
        "--others", type=Path, metavar="DIR", help="pictures of other things, a folder for a kind"
    )
    command.add_argument("--sounds", type=Path, metavar="DIR", help="sounds, for spectrograms")
    command.add_argument(
        "--most", type=int, metavar="N", help="films of each folder, by chance; default: all"
    )
    command.add_argument(
        "--turned", type=int, default=100, metavar="N", help="of these also turned and inverted"
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _add_balance(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--balance",
        choices=BALANCES,
        help="what is done about labels of unequal size; default: as the recipe says",
    )


def add_ablate(command: argparse.ArgumentParser) -> None:
    """The arguments of `ablate`."""
    command.add_argument("recipe", metavar="RECIPE")
    command.add_argument("--data", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--table", action="append", default=[], choices=TABLES, help="default: all that it takes"
    )
    command.add_argument("--epochs", type=int, default=2)
    command.add_argument("--most", type=int, default=240, metavar="N", help="samples to learn from")
    command.add_argument("--folds", type=int, default=3)
    command.add_argument("--side", type=int, default=64, metavar="PIXELS")
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--out", type=Path, metavar="FILE", help="write JSON")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def add_compare(command: argparse.ArgumentParser) -> None:
    """The arguments of `compare`."""
    command.add_argument("one", type=Path, metavar="ONE.json")
    command.add_argument("other", type=Path, metavar="OTHER.json")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def ablated(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], str]:
    """The tables asked for, else all that the recipe takes, as JSON values and as text."""
    from xai_demo.training import ablation

    wanted = [name for name in arguments.table if name != "explainers"]
    budget = ablation.Budget(
        epochs=arguments.epochs,
        most=arguments.most,
        folds=arguments.folds,
        side=arguments.side,
        seed=arguments.seed,
    )
    result: dict[str, Any] = {}
    texts = []
    if wanted or not arguments.table:
        result = ablation.ablate(
            arguments.recipe, data=arguments.data, tables=wanted, budget=budget, progress=progress
        )
        texts.append(ablation.table(result))
    if "explainers" in arguments.table or not arguments.table:
        result["explainers"], text = _explainers_compared(arguments, settings, progress)
        texts.append(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        arguments.out.write_text(text, encoding="utf-8")
    return result, "\n\n".join(texts)


def _explainers_compared(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any] | None, str]:
    """Those of `EXPLAINERS` that fit, on weights that ship: so small a lesson teaches no heat.

    None, and why, where all tables were asked for and the weights are not here.
    """
    from xai_demo import explainers, networks
    from xai_demo.hub import Hub
    from xai_demo.training import explainer_eval, explainer_report

    name, hub = arguments.recipe, Hub(settings)
    if not arguments.table and not (name in hub.names() and hub.available(name)):
        return None, (
            f"Explainers were not compared: the weights of {name} are not here, wanted: those that "
            f"`fetch {name}` or `train {name}` bring, in {settings.weights_dir}."
        )
    fitting = explainers.fitting(networks.architecture(hub.model(name)).kind)
    measured = explainer_eval.evaluate_explainers(
        name,
        settings=settings,
        data=arguments.data,
        most=min(arguments.most, explainer_eval.MOST),
        only=[each for each in EXPLAINERS if each in fitting],
        progress=progress,
    )
    left = [each for each in EXPLAINERS if each not in fitting]
    said = f"\n\nDoes not fit this network: {', '.join(left)}." if left else ""
    return measured, explainer_report.table(measured) + said


def gate_measured(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], str]:
    """How the gate judges films and other pictures, as JSON values and as text."""
    from xai_demo.training import gate_eval

    asked = gate_eval.ImageFolders(
        films=arguments.data,
        others=arguments.others,
        sounds=arguments.sounds,
        most=arguments.most,
        turned=arguments.turned,
    )
    result = gate_eval.evaluate_gate(asked, settings=settings, progress=progress)
    return result, gate_eval.table(result)


def compared(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The paired t-tests between two runs, as JSON values and as text."""
    from xai_demo.training import fold_metrics

    result = fold_metrics.compare(_run(arguments.one), _run(arguments.other))
    lines = ["| figure | difference | t | p |", "| --- | --- | --- | --- |"]
    for name, row in result.items():
        cells = ("not defined" if row[k] is None else f"{row[k]:.4g}" for k in row)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return result, "\n".join(lines)


def _run(path: Path) -> dict[str, Any]:
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{path} cannot be read as JSON ({type(error).__name__}), wanted: what "
            "`cross-validate --json` prints."
        ) from error
    if not isinstance(run, dict):
        raise RequestError(f"{path} holds a {type(run).__name__}, wanted: a run with its folds.")
    return run
