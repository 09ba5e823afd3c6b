"""The 32-bit instruction descriptor of tcgen05.mma, ``idesc``.

Bit fields: PTX ISA 9.7.16.4.2, Tables 42 to 44; CUTLASS cute/arch/mma_sm100_desc.hpp. Shapes: PTX
ISA 9.7.16.2.1, Table 39; the limits of N are those that CuTe-DSL and CUTLASS enforce.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fa4gen.core.errors import KernelFault, UnknownName, UnsupportedInstruction

_F8F6F4 = {"e4m3": 0, "e5m2": 1, "e2m3": 3, "e3m2": 4, "e2m1": 5}


@dataclass(frozen=True, slots=True)
class MmaKind:
    """What ``.kind::`` of tcgen05.mma implies."""

    name: str
    k: int
    """Elements along the sum of one instruction (dense)."""
    operands: dict[str, int]
    """Formats of A and B and their codes."""
    results: dict[str, int]
    """Formats of D and their codes."""
    block_scaled: bool = False
    mn_major: frozenset[str] = frozenset()
    """Operand formats that may be MN-major."""


KINDS = {
    kind.name: kind
    for kind in (
        MmaKind(
            "f16",
            16,
            {"f16": 0, "bf16": 1},
            {"f16": 0, "f32": 1},
            mn_major=frozenset({"f16", "bf16"}),
        ),
        MmaKind("tf32", 8, {"tf32": 2}, {"f32": 1}, mn_major=frozenset({"tf32"})),
        MmaKind("f8f6f4", 32, _F8F6F4, {"f16": 0, "f32": 1}, mn_major=frozenset({"e4m3", "e5m2"})),
        MmaKind("i8", 32, {"u8": 0, "s8": 1}, {"s32": 2}, mn_major=frozenset({"u8", "s8"})),
        MmaKind("mxf8f6f4", 32, _F8F6F4, {"f32": 1}, True, frozenset({"e4m3", "e5m2"})),
        MmaKind("mxf4", 64, {"e2m1": 1}, {"f32": 1}, True),
        MmaKind("mxf4nvf4", 64, {"e2m1": 1}, {"f32": 1}, True),
    )
}
"""Every kind, by its name in PTX."""

_MAX_N = 256
_WS_SHIFTS = (0, 8, 16, 32)
_SCALE_FORMATS = ("ue4m3", "ue8m0")


@dataclass(frozen=True, slots=True)
class InstructionDescriptor:
    """A decoded descriptor. M and N are those of the whole instruction, both CTAs together."""

    kind: str
    m: int
    n: int
    a_format: str
    b_format: str
    d_format: str = "f32"
    a_mn_major: bool = False
    b_mn_major: bool = False
    negate_a: bool = False
    negate_b: bool = False
    saturate: bool = False
    """i8 only."""
    sparse: bool = False
    sparsity_selector: int = 0
    max_shift: int = 0
    """``.ws`` only: 0, 8, 16 or 32."""
    scale_format: str = "ue8m0"
    """Block-scaled kinds only: ``ue4m3`` or ``ue8m0``."""
    a_scale_id: int = 0
    b_scale_id: int = 0

    @property
    def k(self) -> int:
        """Elements along the sum: twice the dense ones where A is sparse."""
        return KINDS[self.kind].k << self.sparse


@lru_cache(maxsize=1024)
def decode(kind: str, idesc: int) -> InstructionDescriptor:
    """The descriptor behind the operand ``idesc`` of ``tcgen05.mma.kind::KIND``.

    Raises:
        UnknownName: no such kind.
        KernelFault: reserved bits are set, or a format code that the kind does not have.
        UnsupportedInstruction: the K = 96 form, which only sm_103a has.
    """
    if kind not in KINDS:
        raise UnknownName("tcgen05.mma kind", kind, KINDS)
    entry = KINDS[kind]
    if entry.block_scaled:
        return _decode_block_scaled(entry, idesc)
    _check_reserved(entry, idesc, 1 << 6 | 1 << 23 | 1 << 29)
    return InstructionDescriptor(
        kind,
        m=(idesc >> 24 & 31) << 4,
        n=(idesc >> 17 & 63) << 3,
        a_format=_format(entry, "A", entry.operands, idesc >> 7 & 7),
        b_format=_format(entry, "B", entry.operands, idesc >> 10 & 7),
        d_format=_format(entry, "D", entry.results, idesc >> 4 & 3),
        a_mn_major=bool(idesc >> 15 & 1),
        b_mn_major=bool(idesc >> 16 & 1),
        negate_a=bool(idesc >> 13 & 1),
        negate_b=bool(idesc >> 14 & 1),
        saturate=bool(idesc >> 3 & 1),
        sparse=bool(idesc >> 2 & 1),
        sparsity_selector=idesc & 3,
        max_shift=_WS_SHIFTS[idesc >> 30 & 3],
    )


def encode(desc: InstructionDescriptor) -> int:
    """The 32-bit word of a descriptor, whose formats must exist in its kind.

    Raises:
        KernelFault: a format that the kind does not have.
    """
    entry = KINDS[desc.kind]
    a, b = (_code(entry, name, entry.operands) for name in (desc.a_format, desc.b_format))
    word = desc.sparse << 2 | a << 7 | b << 10 | desc.negate_a << 13 | desc.negate_b << 14
    word |= desc.a_mn_major << 15 | desc.b_mn_major << 16 | (desc.n >> 3) << 17
    word |= (desc.m >> 4) << 24
    if entry.block_scaled:
        word |= desc.b_scale_id << 4 | desc.a_scale_id << 29
        return word | _SCALE_FORMATS.index(desc.scale_format) << 23
    word |= desc.sparsity_selector | desc.saturate << 3
    word |= _code(entry, desc.d_format, entry.results) << 4
    return word | _WS_SHIFTS.index(desc.max_shift) << 30


def validate(desc: InstructionDescriptor, cta_group: int, ws: bool = False) -> None:
    """Refuse what the tensor cores cannot do.

    Args:
        desc: the descriptor.
        cta_group: 1 or 2.
        ws: whether the instruction is the weight-stationary ``.ws``.

    Raises:
        KernelFault: a shape or a combination of fields that is not allowed, with the arithmetic.
    """
    _validate_m(desc, cta_group, ws)
    _validate_n(desc, cta_group, ws)
    entry = KINDS[desc.kind]
    for side, major, name in (
        ("A", desc.a_mn_major, desc.a_format),
        ("B", desc.b_mn_major, desc.b_format),
    ):
        if major and name not in entry.mn_major:
            raise _fault(desc, f"{side} of {name} is MN-major, allowed: K-major only")
    if desc.saturate and desc.kind != "i8":
        raise _fault(desc, "saturate (bit 3) is set, allowed: with kind::i8 only")
    if desc.kind == "i8" and (desc.negate_a or desc.negate_b):
        raise _fault(desc, "a negate bit (13, 14) is set, allowed: with floating-point kinds only")
    if desc.kind == "f16" and desc.d_format == "f16" and "bf16" in (desc.a_format, desc.b_format):
        raise _fault(desc, "D is f16 with bf16 operands, allowed: f32, or f16 operands")
    if desc.max_shift and not ws:
        raise _fault(desc, f"maximum shift {desc.max_shift} (bits 30-31), allowed: with .ws only")


def _validate_m(desc: InstructionDescriptor, cta_group: int, ws: bool) -> None:
    if ws:
        allowed: tuple[int, ...] = (32, 64, 128) if cta_group == 1 else ()
    elif KINDS[desc.kind].block_scaled:
        allowed = (128,) if cta_group == 1 else (128, 256)
    else:
        allowed = (64, 128) if cta_group == 1 else (128, 256)
    if desc.m not in allowed:
        raise _fault(
            desc,
            f"M is {desc.m // 16} * 16 = {desc.m}, allowed with cta_group::{cta_group}"
            f"{' and .ws' if ws else ''}: {', '.join(map(str, allowed)) or 'nothing'}",
        )


def _validate_n(desc: InstructionDescriptor, cta_group: int, ws: bool) -> None:
    step = 8 * cta_group
    also: tuple[int, ...] = ()
    if ws:
        if desc.n not in (64, 128, 256):
            raise _fault(desc, f"N is {desc.n // 8} * 8 = {desc.n}, allowed with .ws: 64, 128, 256")
        return
    if desc.kind == "i8":
        step, also = 16 * cta_group, ((8, 24) if cta_group == 1 else ())
    elif desc.b_mn_major and desc.b_format in {"e4m3", "e5m2"}:
        step = 16 * cta_group  # PTX ISA Table 52
    if desc.n in also or (desc.n % step == 0 and step <= desc.n <= _MAX_N):
        return
    more = f" and {', '.join(map(str, also))}" if also else ""
    raise _fault(
        desc,
        f"N is {desc.n // 8} * 8 = {desc.n}, allowed with cta_group::{cta_group}: multiples of "
        f"{step} from {step} to {_MAX_N}{more}",
    )


def _decode_block_scaled(entry: MmaKind, idesc: int) -> InstructionDescriptor:
    if idesc >> 31 & 1:
        raise UnsupportedInstruction(
            f"tcgen05.mma idesc {idesc:#010x}: bit 31 asks for K = 96, which only sm_103a has"
        )
    reserved, b_code = 0b1011 | 1 << 6 | 0b111 << 24, idesc >> 10 & 7
    if entry.name != "mxf8f6f4":
        # Bit 12 is a version of sparsity: CuTe-DSL's Tcgen05MxOmmaInstrDesc sets it without any.
        reserved, b_code = reserved | 0b11 << 15, b_code & 3
    _check_reserved(entry, idesc, reserved)
    return InstructionDescriptor(
        entry.name,
        m=(idesc >> 27 & 3) << 7,
        n=(idesc >> 17 & 63) << 3,
        a_format=_format(entry, "A", entry.operands, idesc >> 7 & 7),
        b_format=_format(entry, "B", entry.operands, b_code),
        a_mn_major=bool(idesc >> 15 & 1),
        b_mn_major=bool(idesc >> 16 & 1),
        negate_a=bool(idesc >> 13 & 1),
        negate_b=bool(idesc >> 14 & 1),
        sparse=bool(idesc >> 2 & 1),
        scale_format=_SCALE_FORMATS[idesc >> 23 & 1],
        a_scale_id=idesc >> 29 & 3,
        b_scale_id=idesc >> 4 & 3,
    )


def _format(entry: MmaKind, side: str, codes: dict[str, int], code: int) -> str:
    for name, known in codes.items():
        if known == code:
            return name
    listed = ", ".join(f"{known} {name}" for name, known in codes.items())
    raise KernelFault(f"tcgen05.mma.kind::{entry.name}: format {code} of {side}, allowed: {listed}")


def _code(entry: MmaKind, name: str, codes: dict[str, int]) -> int:
    if name not in codes:
        raise KernelFault(
            f"tcgen05.mma.kind::{entry.name}: got format {name}, allowed: {', '.join(codes)}"
        )
    return codes[name]


def _check_reserved(entry: MmaKind, idesc: int, reserved: int) -> None:
    wrong = idesc & reserved
    if wrong:
        bits = [bit for bit in range(32) if wrong >> bit & 1]
        raise KernelFault(
            f"tcgen05.mma.kind::{entry.name}: reserved bits {bits} of idesc {idesc:#010x} are set, "
            "they must be 0"
        )


def _fault(desc: InstructionDescriptor, text: str) -> KernelFault:
    return KernelFault(f"tcgen05.mma.kind::{desc.kind}: {text}")
