"""Running a mutant until the emulator notices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module
from unittest import mock

from fa4gen.core.errors import EmulationError, KernelFault
from fa4gen.emulator.decode import Program, decode
from fa4gen.emulator.emulate import Options, emulate
from fa4gen.emulator.findings import Finding, FindingKind, FindingLog
from fa4gen.emulator.machine import Observer
from fa4gen.emulator.memory import Buffer
from fa4gen.emulator.session import shape_of
from fa4gen.ptx import parse
from fa4gen.ptx.ir import Instruction, Module
from mutation.benches import FLAVOURS, Bench, load_bench
from mutation.code import Code
from mutation.facts import Facts, Recorder, site_of

Trial = tuple[str, str]
"""A policy and one of :data:`mutation.benches.FLAVOURS`."""
NORMAL, JUMPY = FLAVOURS
TRIALS: tuple[Trial, ...] = (
    ("eager", NORMAL),
    ("eager", JUMPY),
    ("lazy", NORMAL),
    ("seed:0", JUMPY),
    ("seed:1", NORMAL),
)
"""In the order in which they are tried, until something is noticed."""
MORE_TRIALS: tuple[Trial, ...] = tuple(
    (f"seed:{seed}", FLAVOURS[seed % len(FLAVOURS)]) for seed in range(2, 10)
)
"""For what nothing has noticed."""
PATIENCE = 4
"""A mutant that executes so many times the good kernel's instructions counts as endless."""
_FIRST_LIMIT = 10**8
_EMULATE = import_module("fa4gen.emulator.emulate")  # the package has a function of that name


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        notice: What noticed it: a kind of finding, ``numbers``, ``policies``, ``refused``, or
            ``crash`` if the emulator itself failed; empty if nothing did.
        trial: Under which policy.
        message: What was said.
    """

    notice: str = ""
    trial: str = ""
    message: str = ""

    @property
    def noticed(self) -> bool:
        """Whether the emulator said that something is wrong with the kernel."""
        return self.notice not in {"", "crash"}


class _FirstFinding(FindingLog):
    """Ends the run at the first finding: more are not needed."""

    def add(self, finding: Finding) -> None:
        first = not self.findings
        super().add(finding)
        if first and finding.kind not in {FindingKind.FAULT, FindingKind.DEADLOCK}:
            raise KernelFault("enough")


class Machine:
    """A good kernel ready to be mutated.

    Attributes:
        code: The good kernel.
        facts: What it does in all of :data:`TRIALS`.

    Raises:
        RuntimeError: it is not right.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        assert bench.launch.ptx is not None
        self.code = Code(parse(bench.launch.ptx))
        self._buffers = [Buffer(t.ctypes.data, t.nbytes, name) for name, t in bench.tensors.items()]
        self._limit = _FIRST_LIMIT
        self._executed = 0
        recorder = Recorder()
        program, most = recorder.watched(decode(self.code.module)), 0
        for trial in TRIALS:
            with recorder.recording():
                finding = self._run(program, trial)
            if wrong := finding or bench.judge(trial[1]):
                raise RuntimeError(f"{bench.name}, {trial}: the good kernel: {wrong}")
            most = max(most, self._executed)
        self._limit = PATIENCE * most
        self.facts: Facts = recorder.facts

    def reached(self, inst: Instruction) -> bool:
        """Whether a lane of the good kernel executes ``inst``."""
        return site_of(inst) in self.facts.reached

    def judge(self, module: Module, trials: tuple[Trial, ...] = TRIALS) -> Verdict:
        """Emulate a mutant under one trial after the other until something is noticed."""
        try:
            program = decode(module)
        except EmulationError as error:
            return Verdict("refused", "decoding", str(error))
        outcomes: dict[str, dict[str, bytes]] = {}
        for trial in trials:
            try:
                notice, message = self._try(program, trial, outcomes)
            except EmulationError as error:
                notice, message = "refused", str(error)
            except Exception as error:  # the emulator's own mistake, to be reported as such
                notice, message = "crash", f"{type(error).__name__}: {error}"
            if notice:
                return Verdict(notice, ", ".join(trial), message)
        return Verdict()

    def _try(
        self, program: Program, trial: Trial, outcomes: dict[str, dict[str, bytes]]
    ) -> tuple[str, str]:
        """What notices a mutant in one trial, and what is said; empty if nothing does."""
        flavour = trial[1]
        finding = self._run(program, trial)
        if finding is not None:
            return finding.kind.value, finding.message
        if wrong := self.bench.judge(flavour):
            return "numbers", wrong
        outputs = {name: t.tobytes() for name, t in self.bench.tensors.items()}
        first = outcomes.setdefault(flavour, outputs)
        differing = [name for name in outputs if first[name] != outputs[name]]
        return ("policies", f"{', '.join(differing)} differ") if differing else ("", "")

    def watch(self, module: Module) -> Facts:
        """What a mutant that nothing has noticed does in :data:`TRIALS`."""
        recorder = Recorder()
        program = recorder.watched(decode(module))
        for trial in TRIALS:
            with recorder.recording():
                self._run(program, trial)
        return recorder.facts

    @cached_property
    def histories(self) -> list[list[int]]:
        """The instructions that each warp of the good kernel executes, in order; both inputs."""
        found: list[list[int]] = []
        observer = Observer(
            on_end=lambda cluster: found.extend(list(w.history or ()) for w in cluster.warps),
            keep_history=True,
        )
        program = decode(self.code.module)
        for trial in TRIALS[: len(FLAVOURS)]:
            self._run(program, trial, observer)
        return found

    def _run(
        self, program: Program, trial: Trial, observer: Observer | None = None
    ) -> Finding | None:
        launch, (policy, flavour) = self.bench.launch, trial
        for name, tensor in self.bench.tensors.items():
            tensor[...] = self.bench.contents[flavour][name]
        options = Options(
            policy=policy, max_instructions=self._limit, observer=observer or Observer()
        )
        with mock.patch.object(_EMULATE, "FindingLog", _FirstFinding):
            found = emulate(program, shape_of(launch), launch.params, self._buffers, options)
        self._executed = found.executed
        return found.findings[0] if found.findings else None


@lru_cache(maxsize=1)
def machine(name: str) -> Machine:
    """The machine of a bench; the last one asked for is kept."""
    return Machine(load_bench(name))
