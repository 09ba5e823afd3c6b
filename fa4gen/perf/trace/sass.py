"""SASS, as nvdisasm writes it: its loops, and how many instructions of each class they have.

nvdisasm comes with CUDA, with the wheels ``nvidia-cuda-nvdisasm`` and ``nvidia-cuda-nvcc``, and
with Triton. Nothing here needs it: without it counts are those of the PTX.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fa4gen.core.errors import EvaluationError
from fa4gen.perf.trace.machine_code import Control

NVDISASM = "nvdisasm"
TIMEOUT_S = 60.0
SPIN = 2
"""Instructions that a loop without work has besides its branch."""

MUFU, FMA, MINMAX, CONVERT, INTEGER, OTHER = "mufu", "fma", "minmax", "convert", "integer", "other"
"""Classes of instructions. ``integer`` is the rest of the ALU, ``other`` everything else."""

_FMA = frozenset({"FFMA", "FMUL", "FADD", "FFMA2", "FMUL2", "FADD2", "IMAD", "HFMA2", "HMUL2"})
_MINMAX = frozenset({"FMNMX", "FMNMX3"})
_CONVERT = frozenset({"F2FP", "F2F", "F2I", "I2F", "I2FP", "F2IP"})
_INTEGER = frozenset(
    {
        *("FSEL", "FSETP", "IABS", "IADD", "IADD3", "IMNMX", "ISETP", "LEA", "LOP3", "PLOP3"),
        *("PRMT", "R2P", "SEL", "SHF", "SHL", "SHR", "VIADD", "VIADDMNMX", "VIMNMX", "VIMNMX3"),
        *("BMSK", "FLO", "POPC", "SGXT"),
    }
)
EXPONENTIAL = "MUFU.EX2"
ANCHORS = {
    EXPONENTIAL: "ex2",
    "HGMMA": "mma",
    "UTCHMMA": "mma",
    "UTCQMMA": "mma",
    "LDTM": "tmem load",
    "STTM": "tmem store",
    "UTMALDG": "copy",
    "UTMASTG": "copy",
}
"""Instructions that ptxas neither adds nor leaves out, by the beginning of their names."""

CONTROL_SHIFT, STALL_MASK, BOARD_MASK, BOARDS = 41, 0xF, 0x7, 6
WRITES_SHIFT, READS_SHIFT, WAITS_SHIFT = 5, 8, 11
"""Of the upper half of an instruction's 128 bits: the stall, a hint, the scoreboards it takes (7 is
none) and a mask of those it waits for.

Source: Jia et al., Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking, section 2.1;
that the places are the same in sm_90a and sm_100a shows in what is there: stalls are 1 for FFMA, 2
for what the ALU takes at half rate, 8 for MUFU (4 in sm_103a), and whoever uses what MUFU or a load
gave waits for the board that it took."""

_LEAVES = ("BRX", "JMP", "JMX", "CALL", "RET", "BRK", "WARPSYNC.COLLECTIVE")
"""Beginnings of what goes elsewhere than to the next instruction or a label nearby."""
_LABEL = re.compile(r"^\.(L_\w+):")
_INSTRUCTION = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?P<guard>@!?U?P\w+\s+)?(?P<op>[A-Z]\S*)(.*)")
_UPPER_HALF = re.compile(r"^\s+/\* 0x([0-9a-f]{16}) \*/\s*$")
_TARGET = re.compile(r"(?P<predicate>!?U?P\d+,\s*)?`\(\.(?P<label>L_\w+)\)")


@dataclass(frozen=True, slots=True)
class SassLoop:
    """A loop of machine code, its inner loops included."""

    start: int
    end: int
    """Of its first and last instruction, counted from the beginning of the kernel."""
    anchors: tuple[tuple[str, int], ...]
    """How many of :data:`ANCHORS` it has, by their names."""


@dataclass(frozen=True, slots=True)
class Sass:
    """The machine code of one kernel."""

    opcodes: tuple[str, ...]
    controls: tuple[Control, ...]
    """A stall of 0 where the text has no encoding."""
    loops: tuple[SassLoop, ...]
    """In the order in which they begin."""
    targets: Mapping[int, int]
    """Of branches: where to, both counted from the beginning of the kernel."""

    def is_straight(self, positions: Sequence[int]) -> bool:
        """Whether a warp that goes round a loop executes each of these once, one after the other.

        Branches out of the loop are those of waits that are not over, and of its end; a branch to
        the instruction before is such a wait, too.
        """
        first, last = positions[0], positions[-1]
        if len(positions) != last - first + 1:
            return False  # there is another loop within
        for at in positions[:-1]:
            to = self.targets.get(at)
            if to is not None and first <= to <= last and not 0 <= at - to <= SPIN:
                return False
            if self.opcodes[at].startswith(_LEAVES):
                return False
        return self.targets.get(last) == first


def find_nvdisasm() -> Path | None:
    """Where nvdisasm is; ``None`` if nowhere: ``FA4GEN_NVDISASM``, PATH, CUDA, installed wheels."""
    asked = os.environ.get("FA4GEN_NVDISASM")
    if asked is not None:
        return Path(asked) if Path(asked).is_file() else None
    on_path = shutil.which(NVDISASM)
    if on_path is not None:
        return Path(on_path)
    return next((path for path in _places() if path.is_file()), None)


def _places() -> Iterator[Path]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            yield Path(os.environ[variable]) / "bin" / NVDISASM
    yield Path("/usr/local/cuda/bin") / NVDISASM
    packages = Path(sysconfig.get_path("purelib"))
    yield from sorted(packages.glob(f"nvidia/*/bin/{NVDISASM}"), reverse=True)
    yield packages / "triton" / "backends" / "nvidia" / "bin" / NVDISASM


@lru_cache(maxsize=64)
def disassemble(cubin: bytes, tool: Path) -> str:
    """The text that nvdisasm writes of a cubin.

    Raises:
        EvaluationError: it does not take the cubin, or does not answer.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        try:
            done = subprocess.run(
                [str(tool), "-c", "-hex", file.name],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EvaluationError(f"{tool}: {error}; counts are those of the PTX") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise EvaluationError(f"{tool}: exit status {done.returncode}: {said[0]}")
    return done.stdout


def parse_sass(text: str) -> Sass:
    """The kernel in the text of nvdisasm; of several the first that has instructions.

    A loop is a branch back under a predicate: ptxas puts blocks that are seldom entered behind all
    others, and they jump back without one.
    """
    opcodes: list[str] = []
    controls: list[Control] = []
    labels: dict[str, int] = {}
    branches: list[tuple[int, str, bool]] = []
    for line in text.splitlines():
        if line.startswith("\t.section\t.text.") and opcodes:
            break
        label = _LABEL.match(line)
        if label:
            labels[label[1]] = len(opcodes)
            continue
        upper = _UPPER_HALF.match(line)
        if upper and controls:
            controls[-1] = control_of(int(upper[1], 16))
        found = _INSTRUCTION.match(line)
        if not found:
            continue
        target = _TARGET.search(found[3])
        if found["op"].startswith("BRA") and target:
            conditional = bool(found["guard"] or target["predicate"])
            branches.append((len(opcodes), target["label"], conditional))
        opcodes.append(found["op"].rstrip(";"))
        controls.append(Control(0))
    ends: dict[int, int] = {}
    targets = {at: labels[name] for at, name, _ in branches if name in labels}
    for at, _, conditional in branches:
        start = targets.get(at, at + 1)
        if conditional and start <= at:
            ends[start] = max(at, ends.get(start, 0))
    loops = [
        SassLoop(start, end, anchors_of(opcodes[start : end + 1]))
        for start, end in sorted(ends.items())
    ]
    return Sass(tuple(opcodes), tuple(controls), tuple(loops), targets)


def control_of(upper: int) -> Control:
    """What the upper 64 bits of an instruction tell the scheduler."""
    bits = upper >> CONTROL_SHIFT
    writes, reads = bits >> WRITES_SHIFT & BOARD_MASK, bits >> READS_SHIFT & BOARD_MASK
    waits = tuple(board for board in range(BOARDS) if bits >> WAITS_SHIFT >> board & 1)
    return Control(
        bits & STALL_MASK,
        writes if writes < BOARDS else -1,
        reads if reads < BOARDS else -1,
        waits,
    )


def anchors_of(opcodes: Iterable[str]) -> tuple[tuple[str, int], ...]:
    """How many of :data:`ANCHORS` there are."""
    count: Counter[str] = Counter()
    for opcode in opcodes:
        count.update(name for start, name in ANCHORS.items() if opcode.startswith(start))
    return tuple(sorted(count.items()))


def class_of(opcode: str) -> str:
    """The class of a machine instruction."""
    name = opcode.split(".", maxsplit=1)[0]
    if name == "MUFU":
        return MUFU
    for names, found in ((_FMA, FMA), (_MINMAX, MINMAX), (_CONVERT, CONVERT), (_INTEGER, INTEGER)):
        if name in names:
            return found
    return OTHER
