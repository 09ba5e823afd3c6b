"""Write the vector files of the scalar instructions: ``python tests/vectors/make_scalar.py``.

The same bits come out every time, so a change of a file is a change of what is expected.
"""

from __future__ import annotations

from collections.abc import Iterator

import scalar_approx
import scalar_bits
import scalar_compare
import scalar_convert
import scalar_float
import scalar_integer
from vector_file import VectorFile, texts, write

MODULES = (
    scalar_integer,
    scalar_bits,
    scalar_float,
    scalar_compare,
    scalar_approx,
    scalar_convert,
)


def files() -> Iterator[VectorFile]:
    """The vectors of every opcode."""
    for module in MODULES:
        yield from module.files()


def main() -> None:
    made = texts(files())
    for path, text in made.items():
        write(path, text)
    print(f"{len(made)} files, {sum(path.stat().st_size for path in made) // 1024} KiB")


if __name__ == "__main__":
    main()
