"""Record what a Hopper GPU makes of the suite's whole kernels for sm_90a.

On a machine with the GPU, ``python record_whole.py --out FOLDER`` compiles and launches them, and
writes all they give to a folder. Anywhere, ``python record_whole.py --pack FOLDER`` makes of that
the files of ``tests/vectors/hopper/whole``. ``--out FOLDER --emulate`` tries the former without a
GPU; what comes of it can be packed only to another place, ``--into``.

What fails in one case, or a process that dies of it, costs that case alone.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2] / "peers"))

import hopper_whole_recording as recording
from hopper_kernel import Array
from hopper_whole_cases import cases
from hopper_whole_record import EMULATED, Recorded, record

MAX_BYTES = 120_000
"""Of all recordings."""


def main(arguments: list[str] | None = None) -> int:
    """Record or pack.

    Returns:
        0, or 1 if a case failed.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for all that a GPU gives")
    parser.add_argument("--only", default="", help="regular expression of names of cases")
    parser.add_argument("--emulate", action="store_true", help="pretend: emulate instead")
    parser.add_argument("--pack", type=Path, help="a folder that --out has written")
    parser.add_argument("--into", type=Path, default=recording.FOLDER, help="where to pack to")
    given = parser.parse_args(arguments)
    if given.pack:
        return pack(given.pack, given.into)
    if not given.out:
        parser.error("one of --out and --pack is needed")
    wanted = {name: case for name, case in cases().items() if re.search(given.only, name)}
    return int(record(given.out, wanted, given.emulate) > 0)


def pack(folder: Path, into: Path) -> int:
    """Make recordings of what a GPU gave; what is recorded of other cases stays."""
    head = json.loads((folder / "head.json").read_text())
    if head["gpu"] == EMULATED and into == recording.FOLDER:
        print(f"{folder}: got what the emulator gave, allowed: what a GPU gave; or say --into")
        return 1
    entries, texts = recording.read_all(into)
    found = [name for name in cases() if (folder / f"{name}.json").exists()]
    for name in found:
        recorded = Recorded.read(folder, name)
        entries[name] = _entry(name, recorded)
        texts[name] = recorded.ptx
    size = recording.write_all(into, head, entries, texts)
    print(f"{len(found)} of {len(cases())} cases, {size} bytes in {into}, allowed: {MAX_BYTES}")
    return int(len(found) < len(cases()) or size > MAX_BYTES)


def _entry(name: str, recorded: Recorded) -> recording.Entry:
    differences = recorded.differences(name)
    runs: dict[str, dict[str, Any]] = {}
    for key, value in recorded.outputs.items():
        run, _, output = key.partition("/")
        how, findings = differences[key]
        kept: Array = value
        runs.setdefault(run, {})[output] = recording.keep(kept, how is None)
        print(f"{name} {key}: {how or 'equal'} {findings}".rstrip())
    return {**recorded.facts, "runs": runs}


if __name__ == "__main__":
    sys.exit(main())
