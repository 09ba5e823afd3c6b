"""All that a GPU makes of whole kernels, in a folder: ``record_whole.py`` packs it."""

from __future__ import annotations

import datetime
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hopper_kernel import Arrays
from hopper_session import DIED, Session, TaskError
from hopper_whole_build import build_alone, versions
from hopper_whole_cases import COMPILED, Case, cases
from hopper_whole_gpu import Launched, Order
from hopper_whole_launch import as_run, described, emulated, inputs_digest, ptx_digest
from hopper_whole_recording import Difference, difference
from peer_kernels import PeerKernel, TensorSpec

WORKERS = 8
SECONDS = 60
"""What the launches of one kernel may take; the first one has to import torch and CuTe-DSL."""
EMULATED = "none: emulated"
Facts = dict[str, Any]
Builds = Mapping[tuple[str, str], Future[PeerKernel]]


class Gpu(Protocol):
    """What launches: a GPU, or the emulator in its place."""

    def head(self) -> dict[str, str]:
        """Where the outputs come from."""
        ...

    def launch(self, order: Order, run: str) -> Launched:
        """Launch a kernel."""
        ...


@dataclass(frozen=True)
class RealGpu:
    """The GPU that is here, in a process of its own."""

    session: Session
    folder: Path

    def head(self) -> dict[str, str]:
        """Name and driver."""
        made: dict[str, str] = self.session.run("describe", seconds=SECONDS)
        return made

    def launch(self, order: Order, run: str) -> Launched:
        """Launch a kernel; if its process dies, once more in another one."""
        path = str(order.write(self.folder / "order.pickle"))
        try:
            found: Launched = self.session.run("whole", path, SECONDS)
        except TaskError as error:
            if not str(error).startswith(DIED):
                raise
            print(f"AGAIN {order.kernel.label} {run}: {str(error)[:600]}", flush=True)
            found = self.session.run("whole", path, SECONDS)
        return found


@dataclass(frozen=True)
class PretendedGpu:
    """The emulator in the place of a GPU: to try a recording."""

    def head(self) -> dict[str, str]:
        """That there is none."""
        return {"gpu": EMULATED, "driver": "none", "compute_capability": "9.0", "cuda": "none"}

    def launch(self, order: Order, run: str) -> Launched:
        """What is expected of a GPU."""
        kernel = order.kernel
        launch = described(kernel, order.tensors)
        after, _ = emulated(as_run(kernel.ptx, run), launch, order.tensors)
        return Launched({s.name: after[s.name] for s in kernel.tensors if s.role == "output"}, ())


@dataclass
class Recorded:
    """All of one case.

    Attributes:
        facts: Digests, tensors, the launch; by run what was unstable, and what went wrong.
        outputs: By ``run/name``.
    """

    facts: Facts
    ptx: str
    outputs: Arrays = field(default_factory=dict)

    def write(self, folder: Path, name: str) -> None:
        """To three files."""
        (folder / f"{name}.json").write_text(json.dumps(self.facts, indent=1) + "\n")
        (folder / f"{name}.ptx").write_text(self.ptx)
        raw: dict[str, Any] = {key: value.view(np.uint8) for key, value in self.outputs.items()}
        np.savez_compressed(folder / f"{name}.npz", **raw)

    @classmethod
    def read(cls, folder: Path, name: str) -> Recorded:
        """From the files of :meth:`write`."""
        made = cls(
            json.loads((folder / f"{name}.json").read_text()), (folder / f"{name}.ptx").read_text()
        )
        fresh = inputs_of(name, made.facts)
        with np.load(folder / f"{name}.npz") as raw:
            for key in raw.files:
                made.outputs[key] = raw[key].view(fresh[key.partition("/")[2]].dtype)
        return made

    def differences(self, name: str) -> dict[str, tuple[Difference | None, str]]:
        """By ``run/name``, how the emulator's output differs, and findings in words."""
        tensors, found = inputs_of(name, self.facts), {}
        if inputs_digest(tensors) != self.facts["inputs"]:
            raise ValueError(f"{name}: got other inputs here than where it was recorded")
        for run in {key.partition("/")[0]: None for key in self.outputs}:
            after, findings = emulated(as_run(self.ptx, run), self.facts["launch"], tensors)
            for key, value in self.outputs.items():
                if key.startswith(f"{run}/"):
                    how = difference(value, after[key.partition("/")[2]])
                    found[key] = (how, "; ".join(findings))
        return found


def inputs_of(name: str, facts: Mapping[str, Any]) -> Arrays:
    """All tensors of a recorded call, as they are before it."""
    specs = (TensorSpec(n, tuple(shape), *rest) for n, shape, *rest in facts["tensors"])
    return cases()[name].inputs(specs)


def record(out: Path, wanted: Mapping[str, Case], pretend: bool) -> int:
    """Compile, launch, write and compare with the emulator; the cases that failed."""
    began = time.time()
    out.mkdir(parents=True, exist_ok=True)
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(min(WORKERS, os.cpu_count() or 1), spawn) as pool,
        tempfile.TemporaryDirectory(prefix="fa4gen-whole-") as folder,
        Session() as session,
    ):
        builds = {
            (name, run): pool.submit(build_alone, name, run)
            for name, case in wanted.items()
            for run in case.runs
        }
        gpu: Gpu = PretendedGpu() if pretend else RealGpu(session, Path(folder))
        head = {**gpu.head(), "date": datetime.datetime.now(datetime.UTC).date().isoformat()}
        (out / "head.json").write_text(json.dumps({**head, **versions()}, indent=1) + "\n")
        print(f"{head['gpu']}, driver {head['driver']}, {len(wanted)} cases", flush=True)
        failed, checks = 0, []
        for name, case in wanted.items():
            try:
                recorded = _record_case(case, builds, gpu)
                recorded.write(out, name)
            except Exception as error:
                print(f"FAILED {name}: {type(error).__name__}: {str(error)[:2000]}", flush=True)
                failed += 1
                continue
            failed += bool(recorded.facts["failed"])
            print(f"{time.time() - began:.0f} s: {name} launched", flush=True)
            checks.append(pool.submit(_checked, out, name))
        _print_all(checks)
    print(f"{time.time() - began:.0f} s, {failed} of {len(wanted)} cases failed")
    return failed


def _record_case(case: Case, builds: Builds, gpu: Gpu) -> Recorded:
    """Every run of a case; one that fails leaves its reason."""
    kernel = builds[case.name, COMPILED].result()
    tensors = case.inputs(kernel.tensors)
    facts: Facts = {
        "ptx": ptx_digest(kernel.ptx),
        "inputs": inputs_digest(tensors),
        "tensors": [astuple(spec) for spec in kernel.tensors],
        "launch": described(kernel, tensors),
        "unstable": {},
        "failed": {},
    }
    made = Recorded(facts, kernel.ptx)
    for run in case.runs:
        try:
            built = builds[case.name, run].result()
            if ptx_digest(built.ptx) != facts["ptx"]:
                raise ValueError("got other PTX than of the run that is compiled as it comes")
            launched = gpu.launch(Order(built, tensors), run)
        except Exception as error:
            facts["failed"][run] = f"{type(error).__name__}: {error}"[:2000]
            print(f"FAILED {case.name} {run}: {facts['failed'][run]}", flush=True)
            continue
        facts["unstable"][run] = list(launched.unstable)
        made.outputs |= {f"{run}/{name}": value for name, value in launched.outputs.items()}
    return made


def _checked(folder: Path, name: str) -> list[str]:
    """How the outputs of a case compare with the emulator's, in words."""
    recorded = Recorded.read(folder, name)
    lines = []
    for key, (how, findings) in recorded.differences(name).items():
        lines.append(f"{'DIFFERS' if how else 'equal'} {name} {key}: {how or 'all bits'}")
        if findings:
            lines.append(f"FINDING {name} {key}: {findings[:600]}")
    lines += [f"UNSTABLE {name} {r}: {n}" for r, n in recorded.facts["unstable"].items() if n]
    return lines


def _print_all(checks: Iterable[Future[list[str]]]) -> None:
    for check in checks:
        try:
            print("\n".join(check.result()), flush=True)
        except Exception as error:
            print(f"EMULATOR {type(error).__name__}: {str(error)[:1000]}", flush=True)
