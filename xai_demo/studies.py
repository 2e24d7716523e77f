"""`train`, `ablate` and `compare` on the command line: lessons, and what each choice is worth."""

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
    """The tables asked for, as JSON values and as text."""
    from xai_demo.training import ablation, trust

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
    if "explainers" in arguments.table:
        # of the weights that ship: heat of a network that has hardly learnt says nothing
        measured = trust.evaluate_explainers(
            arguments.recipe,
            settings=settings,
            data=arguments.data,
            most=min(arguments.most, trust.MOST),
            only=EXPLAINERS,
            progress=progress,
        )
        result["explainers"] = measured
        texts.append(trust.table(measured))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=2, allow_nan=False) + "\n"
        arguments.out.write_text(text, encoding="utf-8")
    return result, "\n\n".join(texts)


def compared(arguments: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The paired t-tests between two runs, as JSON values and as text."""
    from xai_demo.training import paired

    result = paired.compare(_run(arguments.one), _run(arguments.other))
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
