"""What `publish` and `deploy` can be asked on the command line, and what they say."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo.errors import RequestError, UnknownNameError

if TYPE_CHECKING:
    from xai_demo.settings import Settings

ROOT = Path(__file__).resolve().parents[2]  # of the repository
_FIRST_ANSWER_S = 120.0  # on this machine; longer is a fault


def add_publish(command: argparse.ArgumentParser) -> None:
    """The arguments of `publish`."""
    command.add_argument("model", metavar="MODEL", help="a bundled model, or its directory")
    command.add_argument("--repo", required=True, metavar="OWNER/NAME")
    command.add_argument("--private", action="store_true", help="where the repository is made")
    _add_dry_run(command)


def add_deploy(command: argparse.ArgumentParser) -> None:
    """The arguments of `deploy`."""
    command.add_argument("--space", metavar="OWNER/NAME", help="not wanted by --dry-run")
    command.add_argument("--url", help="to ask when it is up; default: the Space")
    command.add_argument("--message", default="Deploy", help="of the commit")
    _add_dry_run(command)


def published(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """The files of a publication, and the commit that they became."""
    from xai_demo.hub import publish

    directory = settings.weights_dir / arguments.model
    if not directory.is_dir():
        directory = Path(arguments.model)
    if not directory.is_dir():
        bundled = sorted(path.name for path in settings.weights_dir.glob("*/"))
        raise UnknownNameError("model directory", arguments.model, bundled)
    planned = publish.plan_publication(directory, repo_id=arguments.repo)
    yield from planned.lines()
    if arguments.dry_run:
        yield "Nothing was sent."
        return
    commit = publish.publish(planned, private=arguments.private)
    yield f"Published {planned.repo_id} at {commit}"
    yield f"  sha256 {planned.model.sha256} of model.safetensors"


def deployed(arguments: argparse.Namespace, root: Path = ROOT) -> Iterator[str]:
    """The files of the Space, how soon they come up, and the commit that they became."""
    from xai_demo.hub import space

    if not arguments.dry_run and not arguments.space:
        raise RequestError("deploy wants --space OWNER/NAME, or --dry-run")
    chosen = space.required_files(root)
    yield from space.list_files(root, chosen)
    with space.serve_copy(root, chosen) as page:
        yield f"up after {page.seconds:.1f} s on this machine, from these files alone"
        seconds = space.wait_for_answer(page.url, root, within_s=_FIRST_ANSWER_S, pause_s=1)
        yield f"answered for an example {seconds:.1f} s after that"
    if arguments.dry_run:
        yield "Nothing was sent."
        return
    commit = space.deploy(root, chosen, repo_id=arguments.space, message=arguments.message)
    yield f"Deployed {arguments.space} at {commit}"
    seconds = space.wait_until_running(arguments.space, commit)
    yield f"The Space was built and started in {seconds:.0f} s"
    seconds = space.wait_for_answer(arguments.url or arguments.space, root)
    yield f"It answered for an example {seconds:.0f} s after that"


def _add_dry_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dry-run", action="store_true", help="show what would go, send nothing")
