"""One reader, fuzzed in a process of its own: `python -m tests.fuzz.guided READER OUT [OPTION...]`.

libFuzzer, through atheris, keeps the files that reach new lines of the readers and mutates them on,
by `mutation`. It ends the process at the first finding: a crash, a hang, too much memory or an
error that the reader may not raise. The file is then in OUT.
"""

from __future__ import annotations

import faulthandler
import random
import sys
from importlib import import_module
from pathlib import Path

import atheris


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer's options say to stop."""
    name, out, *options = arguments
    # Only what is imported here is instrumented: the package, and not its libraries.
    with atheris.instrument_imports(include=["xai_demo"], enable_loader_override=False):
        from tests.fuzz import mutation, readers

        reader = readers.READERS[name]
        for module in reader.modules:
            import_module(module)
    seeds = reader.seeds()
    corpus = Path(out) / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number:02}").write_bytes(seed)
    faulthandler.enable()
    # Libraries are imported by the first file of each kind; that time is not the file's.
    for seed in seeds:
        readers.read_bytes(reader, seed)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        chance = random.Random(seed)
        return mutation.mutate(data or chance.choice(seeds), chance, chance.choice(seeds))[
            :max_size
        ]

    def fuzz(data: bytes) -> None:
        readers.read_bytes(reader, data)

    flags = [f"-artifact_prefix={out}/", f"-max_len={mutation.MAX_BYTES}", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], str(corpus), *flags, *options], fuzz, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
