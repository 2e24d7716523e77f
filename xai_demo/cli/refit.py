"""The command `refit`: its arguments, and the input check that it fits anew."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from xai_demo.cli import add_json, json_text, progress_bar
from xai_demo.settings import Settings


def add_refit(command: argparse.ArgumentParser) -> None:
    """The options of `refit`."""
    command.add_argument("check", choices=("gate", "age", "lungs", "quality", "cough"))
    command.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="radiographs, or lung sounds"
    )
    command.add_argument(
        "--others",
        type=Path,
        metavar="DIR",
        help="gate, lungs: other images, one folder for each kind",
    )
    command.add_argument(
        "--ages", type=Path, metavar="FILE", help="age: NIH's table, Data_Entry_2017_v2020.csv"
    )
    command.add_argument(
        "--speech", type=Path, metavar="DIR", help="quality: speech; default: imitated here"
    )
    command.add_argument("--music", type=Path, metavar="DIR", help="quality: default: imitated")
    command.add_argument("--coughs", type=Path, metavar="DIR", help="cough: beside imitated ones")
    command.add_argument(
        "--sounds", type=Path, metavar="DIR", help="everyday sounds; default: synthesised here"
    )
    command.add_argument(
        "--most", type=int, metavar="N", help="files of each folder or kind; default: all"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="lungs: fit the network, not only measure it, and write its weights here",
    )
    add_json(command)


def refit(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """refit the coefficients of an input check; part of what they were fitted on was not kept"""
    from xai_demo.training import age_fit, cough_fit, gate_eval
    from xai_demo.training import refit as fits

    if arguments.check == "lungs":
        yield _refit_lungs(arguments, settings)
        return

    with progress_bar() as progress:
        if arguments.check == "gate":
            images = gate_eval.ImageFolders(
                radiographs=arguments.data,
                others=arguments.others,
                sounds=arguments.sounds,
                most=arguments.most,
            )
            result = fits.refit_gate(images, settings=settings, progress=progress)
        elif arguments.check == "age":
            result = age_fit.refit_age(
                arguments.data,
                settings=settings,
                ages=arguments.ages,
                most=arguments.most,
                progress=progress,
            )
        elif arguments.check == "cough":
            result = cough_fit.refit_cough(
                arguments.data, coughs=arguments.coughs, most=arguments.most, progress=progress
            )
        else:
            sounds = fits.SoundFolders(
                recordings=arguments.data,
                speech=arguments.speech,
                music=arguments.music,
                noise=arguments.sounds,
                most=arguments.most,
            )
            result = fits.refit_quality(sounds, progress=progress)
    yield json_text(result) if arguments.json else fits.table(result)


def _refit_lungs(arguments: argparse.Namespace, settings: Settings) -> str:
    from xai_demo.training import gate_eval, lung_fit

    folders = gate_eval.ImageFolders(
        radiographs=arguments.data,
        others=arguments.others,
        sounds=arguments.sounds,
        most=arguments.most,
    )
    with progress_bar() as progress:
        result = lung_fit.refit_lungs(
            folders, settings=settings, out=arguments.out, progress=progress
        )
    return json_text(result) if arguments.json else lung_fit.table(result)
