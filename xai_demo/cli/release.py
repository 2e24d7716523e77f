"""The commands that upload a model or the Space: their options, and what they print."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo.errors import RequestError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xai_demo.settings import Settings

ROOT = Path(__file__).resolve().parents[2]  # of the repository
# The page runs on this machine already, so a slower first answer is a fault.
_FIRST_ANSWER_TIMEOUT_S = 120.0


def add_publish(command: argparse.ArgumentParser) -> None:
    """The options of `publish`."""
    command.add_argument("model", metavar="MODEL", help="a bundled model, or its directory")
    command.add_argument("--repo", required=True, metavar="OWNER/NAME")
    command.add_argument("--private", action="store_true", help="if the repository is new")
    _add_dry_run(command)


def publish_model(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """upload a model directory to the Hub, with its card"""
    from xai_demo.hub import publish

    directory = settings.weights_dir / arguments.model
    # A bundled model comes before a directory of the same name.
    if not directory.is_dir():
        directory = Path(arguments.model)
    if not directory.is_dir():
        bundled = sorted(path.name for path in settings.weights_dir.glob("*/"))
        raise UnknownNameError("model directory", arguments.model, bundled)
    planned = publish.plan_publication(directory, repo_id=arguments.repo)
    # Printed before anything is sent; a dry run ends here.
    yield from planned.lines()
    if arguments.dry_run:
        yield "Nothing was sent."
        return
    commit = publish.publish(planned, private=arguments.private)
    yield f"Published {planned.repo_id} at {commit}"
    yield f"  sha256 {planned.model.sha256} of model.safetensors"


def add_deploy(command: argparse.ArgumentParser) -> None:
    """The options of `deploy`."""
    command.add_argument("--space", metavar="OWNER/NAME", help="not needed with --dry-run")
    command.add_argument("--url", help="address to test the running page at; default: the Space")
    command.add_argument("--message", default="Deploy", help="of the commit")
    _add_dry_run(command)


def deploy_space(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """upload the files that the Space needs, and test it"""
    from xai_demo.hub import space

    if not arguments.dry_run and not arguments.space:
        raise RequestError("deploy needs --space OWNER/NAME, or --dry-run")
    names = space.required_files(ROOT)
    yield from space.list_files(ROOT, names)
    # The copy proves that the page needs no file outside the list.
    with space.serve_copy(ROOT, names) as page:
        yield f"The page started in {page.seconds:.1f} s on this machine, from these files alone"
        seconds = space.wait_for_answer(page.url, ROOT, within_s=_FIRST_ANSWER_TIMEOUT_S, pause_s=1)
        yield f"It analysed an example {seconds:.1f} s later"
    if arguments.dry_run:
        yield "Nothing was sent."
        return
    commit = space.deploy(ROOT, names, repo_id=arguments.space, message=arguments.message)
    yield f"Deployed {arguments.space} at {commit}"
    # Until the new build runs, the old one answers: its predictions would prove nothing.
    seconds = space.wait_until_running(arguments.space, commit)
    yield f"The Space was built and started in {seconds:.0f} s"
    seconds = space.wait_for_answer(arguments.url or arguments.space, ROOT)
    yield f"It analysed an example {seconds:.0f} s later"


def _add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--dry-run", action="store_true", help="show what would be sent, and send nothing"
    )
