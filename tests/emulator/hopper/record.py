"""Record what a Hopper GPU makes of every kernel: ``python record.py --out tests/vectors/hopper``.

Needs the driver alone, no toolkit. Each task runs in a process that is ended if it faults or takes
too long, so that one bad kernel costs only its own recording.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import re
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import hopper_forms
import hopper_maps
import hopper_mufu
import hopper_recording as recording
import numpy as np
from hopper_answers import answers
from hopper_emulated import run_emulated
from hopper_kernel import Arrays, Kernel
from hopper_registry import kernels
from hopper_session import DIED, Session, TaskError

WORKERS = 8
KEPT = 48
"""Values of a sweep that are kept."""


def main(arguments: list[str] | None = None) -> int:
    """Record, and print what is new.

    Returns:
        0, or 1 if a kernel could not run.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="folder of the recordings")
    parser.add_argument("--only", default="", help="regular expression of names")
    parser.add_argument(
        "--full", type=Path, help="an .npz for all outputs, to study them elsewhere"
    )
    parser.add_argument(
        "--sweeps", type=Path, help="a folder for all values of sweeps, to fit models to"
    )
    parser.add_argument(
        "--explain", type=Path, help="only say what the recordings in a folder answer"
    )
    parser.add_argument("--missing", type=Path, help="only list what a folder has no recording of")
    parser.add_argument("--no-emulator", action="store_true", help="compare with nothing")
    given = parser.parse_args(arguments)
    if given.explain:
        print("\n".join(answers(recording.read(given.explain))))
        return 0
    if given.missing:
        print("\n".join(missing(recording.read(given.missing))) or "nothing is missing")
        return 0
    if not given.out:
        parser.error("one of --out, --explain, --missing is needed")
    return record(given.out, given.only, given.full, given.sweeps, not given.no_emulator)


def missing(recorded: dict[str, recording.Entry]) -> Iterator[str]:
    """Kernels without a recording, or with one of another version of them."""
    for name, kernel in kernels().items():
        if name not in recorded:
            yield name
        elif recorded[name]["fingerprint"] != kernel.fingerprint():
            yield f"{name} (changed since)"


def record(out: Path, only: str, full: Path | None, sweeps: Path | None, emulator: bool) -> int:
    """Run everything whose name matches ``only``, and write the files.

    What the files hold of other kernels stays. Kernels are written before all else, so that a
    mistake later costs nothing.
    """
    began = time.time()
    wanted = [k for name, k in kernels().items() if re.search(only, name)]
    keep: dict[str, Arrays] = {}
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        futures = _emulate(pool, wanted) if emulator else {}
        with Session() as session:
            head = _head(session)
            print(f"{head['gpu']}, driver {head['driver']}, {len(wanted)} kernels", flush=True)
            ran = {kernel.name: _run(session, kernel) for kernel in wanted}
            print(f"{time.time() - began:.0f} s: kernels on the GPU", flush=True)
            entries, failed = _entries(wanted, ran, futures, keep)
            _write(out, head, entries)
            if full is not None:
                flat = {f"{n}:{o}": v for n, found in keep.items() for o, v in found.items()}
                np.savez_compressed(full, **flat)  # type: ignore[arg-type]
            print(f"{time.time() - began:.0f} s: kernels compared and written", flush=True)
            entries |= dict(_others(session, only, sweeps))
    size = _write(out, head, entries)
    print("\n".join(answers(entries)))
    print(f"{time.time() - began:.0f} s, {size / 1024:.0f} KiB in {out}")
    return int(failed > 0)


def _write(out: Path, head: dict[str, str], entries: dict[str, recording.Entry]) -> int:
    """Write the families of ``entries``, with what their files hold already; bytes written."""
    everything = recording.read(out) | entries
    families = {name.partition("/")[0] for name in entries}
    total = 0
    for family in sorted(families):
        mine = {n: e for n, e in everything.items() if n.partition("/")[0] == family}
        total += recording.write(out, family, head, mine)
    return total


def _head(session: Session) -> dict[str, str]:
    made: dict[str, str] = session.run("describe")
    return {**made, "date": datetime.datetime.now(datetime.UTC).date().isoformat()}


def _emulate(pool: ProcessPoolExecutor, wanted: Iterable[Kernel]) -> dict[str, Future[Any]]:
    return {k.name: pool.submit(emulated, k.name) for k in wanted if not (k.only_gpu or k.faults)}


def emulated(name: str) -> tuple[Arrays, list[str]]:
    """The emulator's outputs and findings; run in another process."""
    found = run_emulated(kernels()[name])
    return found.outputs, found.findings


def _run(session: Session, kernel: Kernel) -> Any:
    """What a GPU makes of a kernel, or why nothing; one whose process dies gets a second try."""
    found = ""
    for _ in range(2):
        try:
            return session.run("kernel", kernel.name)
        except TaskError as error:
            found = str(error)
        if not found.startswith(DIED):
            break
        print(f"DIED {kernel.name}: {found}")
    return found


def _entries(
    wanted: list[Kernel],
    ran: dict[str, Any],
    futures: dict[str, Future[Any]],
    keep: dict[str, Arrays],
) -> tuple[dict[str, recording.Entry], int]:
    """Recordings, and how many kernels failed; says what differs from the emulator."""
    entries: dict[str, recording.Entry] = {}
    counts = dict.fromkeys(("equal", "differ", "facts", "faults", "failed"), 0)
    for kernel in wanted:
        found = ran[kernel.name]
        if isinstance(found, str):
            wanted_fault = kernel.faults and found.endswith(f"error {kernel.faults}")
            counts["faults" if wanted_fault else "failed"] += 1
            if not wanted_fault:
                print(f"FAILED {kernel.name}: {found[:1000]}")
            entries[kernel.name] = recording.failure(kernel, found[:300])
            continue
        if kernel.faults:
            print(f"UNEXPECTED {kernel.name}: it runs, without error {kernel.faults}")
        keep[kernel.name] = found.outputs
        theirs = _emulated_outputs(kernel, futures)
        made = entries[kernel.name] = recording.entry(kernel, found.outputs, theirs)
        made["registers"] = found.registers
        if found.unstable:
            made["unstable"] = list(found.unstable)
            print(f"UNSTABLE {kernel.name}: {found.unstable} differ from launch to launch")
        if ours := [name for name, maker in found.maps.items() if maker != "driver"]:
            made["maps_of_fa4gen"] = ours
        wrong = recording.check(kernel, made, theirs) if theirs is not None else []
        counts["facts" if theirs is None else "differ" if wrong else "equal"] += 1
        if wrong:
            print(f"DIFFERS {kernel.name} ({kernel.question})\n    " + "\n    ".join(wrong[:7]))
        for name, value in kernel.wanted().items():
            if name == "status" and (got := found.outputs[name]).any():
                print(f"GAVE UP {kernel.name}: waits {sorted(set(got.tolist()))}")
            elif not np.array_equal(value, found.outputs[name]):
                print(f"UNEXPECTED {kernel.name}: {name} is not what the independent rule gives")
    print(", ".join(f"{count} {what}" for what, count in counts.items()))
    return entries, counts["failed"]


def _emulated_outputs(kernel: Kernel, futures: dict[str, Future[Any]]) -> Arrays | None:
    if kernel.name not in futures:
        return None
    try:
        outputs, findings = futures[kernel.name].result()
    except Exception as error:
        print(f"EMULATOR {kernel.name}: {type(error).__name__}: {str(error)[:300]}")
        return None
    for finding in findings:
        print(f"FINDING {kernel.name}: {finding}")
    made: Arrays = outputs
    return made


def _others(
    session: Session, only: str, sweeps: Path | None
) -> Iterator[tuple[str, recording.Entry]]:
    """Tensor maps of the driver, vector files, sweeps."""
    tasks = [("map", f"driver-map/{case.name}") for case in hopper_maps.driver_cases()]
    tasks += [("forms", f"forms/{name}") for name in hopper_forms.files()]
    tasks += [("sweep", f"sweep/{sweep.name}") for sweep in hopper_mufu.sweeps()]
    for task, name in tasks:
        if not re.search(only, name):
            continue
        try:
            value = session.run(task, name.partition("/")[2])
            if task == "sweep" and sweeps is not None:
                hopper_mufu.keep(sweeps, name.partition("/")[2], value)
            yield name, _other(task, name, value)
        except (TaskError, ValueError) as error:
            print(f"{'REFUSED' if task == 'map' else 'FAILED'} {name}: {str(error)[:300]}")
            yield name, {"error": str(error)[:300]}


def _other(task: str, name: str, value: Any) -> recording.Entry:
    if task == "map":
        return {
            "words": [
                f"{int.from_bytes(value[i : i + 8], 'little'):016x}" for i in range(0, 128, 8)
            ]
        }
    if task == "forms":
        made: recording.Entry = value
        for each in made["differ"][:5]:
            print(f"DIFFERS {name}: {each}")
        return made
    sweep = next(each for each in hopper_mufu.sweeps() if f"sweep/{each.name}" == name)
    at = sweep.kept_places(KEPT)
    return {
        "sha256": recording.digest(value),
        "statistics": sweep.statistics(value),
        "values": [f"{int(v):x}" for v in value[at]],
    }


if __name__ == "__main__":
    sys.exit(main())
