"""Label lists too long for a record: a text file each, one label a line, in the networks' order."""

from importlib.resources import files


def labels(name: str) -> tuple[str, ...]:
    """The labels of `<name>.txt`."""
    return tuple(files(__name__).joinpath(f"{name}.txt").read_text(encoding="utf-8").splitlines())
