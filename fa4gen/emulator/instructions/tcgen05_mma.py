"""tcgen05.mma: one thread has one or two CTAs' tensor cores multiply.

Source: PTX ISA 9.1, section 9.7.16.10; its order among others: see
:mod:`fa4gen.emulator.instructions.tcgen05_pipe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from fa4gen.core.errors import KernelFault, UnsupportedInstruction
from fa4gen.emulator.builder import Builder, unsupported
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.instructions.tcgen05_block_scale import (
    BlockScales,
    scale_address,
    take_block_scale,
)
from fa4gen.emulator.instructions.tcgen05_operands import SharedOperand, shared_operand
from fa4gen.emulator.instructions.tcgen05_pipe import (
    group_of,
    pipe_of,
    require_running,
    take_cta_group,
)
from fa4gen.emulator.instructions.tcgen05_product import Product
from fa4gen.emulator.instructions.tcgen05_tiles import tiles
from fa4gen.emulator.layouts.instruction_descriptor import (
    KINDS,
    InstructionDescriptor,
    decode,
    validate,
)
from fa4gen.emulator.registry import Op, Pipe, instruction
from fa4gen.emulator.tensor_memory import split_address, tensor_memory
from fa4gen.numerics.arrays import Mask
from fa4gen.ptx.ir import Address, Immediate, Operand, Vector

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_COLLECTOR = tuple(f"collector::a::{how}" for how in ("fill", "use", "lastuse", "discard"))
_MASK_WORDS = {1: 4, 2: 8}
"""Registers of a disable-output-lane mask, by ``.cta_group``."""
_FIXED_OPERANDS = 4
"""D, A, B, idesc. Behind them: the disable-output-lane mask, the scale factors of A and B (with
block scaling), enable-input-d, scale-input-d."""
_MAX_DOWN_SCALE = 15
_DOWN_SCALED_KINDS = ("f16", "tf32")
_CELL_BYTES = 4


@dataclass(frozen=True, slots=True)
class _Form:
    """What the modifiers and the literal operands say."""

    kind: str
    cta_group: int
    a_in_tmem: bool
    down_scale: int
    blocks: int
    """Scale factors of a row; 0 without block scaling."""


@instruction("tcgen05.mma", pipe=Pipe.TENSOR, isa="9.7.16.10.9")
def mma(b: Builder) -> Op:
    """Start D = A B^T + D for each active lane; it is over when a commit's mbarrier says so."""
    _refuse_variants(b)
    cta_group = take_cta_group(b)
    kind = b.mods.one_of(*(f"kind::{name}" for name in KINDS)).removeprefix("kind::")
    if not kind:
        b.fail(f"got no kind, known: {', '.join(KINDS)}")
    blocks = take_block_scale(b, kind)
    b.mods.ignore(*_COLLECTOR)
    fixed, rest = b.inst.operands[:_FIXED_OPERANDS], list(b.inst.operands[_FIXED_OPERANDS:])
    mask_slots: tuple[int, ...] = ()
    if rest and isinstance(rest[0], Vector):
        mask_slots = b.srcs(rest.pop(0), 32)
        if len(mask_slots) != _MASK_WORDS[cta_group]:
            b.fail(f"got {len(mask_slots)} words of disable-output-lane")
    wanted = 3 if blocks else 1
    if len(rest) not in (wanted, wanted + 1):
        b.fail(f"got {len(b.inst.operands)} operands")
    d, a, b_operand, idesc = fixed
    scale_addresses = tuple(b.address(rest.pop(0)) for _ in range(2)) if blocks else ()
    enable = b.predicate(rest.pop(0))
    form = _Form(kind, cta_group, isinstance(a, Address), _take_down_scale(b, rest, kind), blocks)
    d_address = b.address(d)
    a_word = b.address(a) if isinstance(a, Address) else b.reader(a, 64)
    b_word, idesc_slot = b.reader(b_operand, 64), b.src(idesc, 32)

    def run(warp: Warp) -> None:
        regs = warp.regs
        values = (d_address(warp), a_word(warp), b_word(warp), regs[idesc_slot], enable(warp))
        scales = tuple(address(warp) for address in scale_addresses)
        masks = [regs[slot] for slot in mask_slots]
        for lane in warp.lanes():
            d, a, b_desc, idesc, enabled = (word[lane] for word in values)
            words = _Words(
                d=int(d),
                a=int(a),
                b=int(b_desc),
                idesc=int(idesc),
                accumulates=bool(enabled),
                scales=tuple(int(address[lane]) for address in scales),
                disabled=_disabled_lanes(b, [int(word[lane]) for word in masks]),
            )
            _start(warp, form, lane, words)

    return run


def _refuse_variants(b: Builder) -> None:
    if b.mods.flag("ws"):
        b.fail("the weight-stationary form is not emulated")
    if b.mods.flag("sp"):
        b.fail("sparse A is not emulated")
    if b.mods.flag("ashift"):
        b.fail("shifted A is not emulated")


def _take_down_scale(b: Builder, rest: list[Operand], kind: str) -> int:
    """``scale-input-d``, the last operand if it is there."""
    if not rest:
        return 0
    (value,) = rest
    if not isinstance(value, Immediate) or not 0 <= value.value <= _MAX_DOWN_SCALE:
        b.fail(f"got {value} as scale-input-d, allowed: a literal from 0 to {_MAX_DOWN_SCALE}")
    if kind not in _DOWN_SCALED_KINDS:
        b.fail(f"got scale-input-d with kind::{kind}, allowed: {', '.join(_DOWN_SCALED_KINDS)}")
    return value.value


def _disabled_lanes(b: Builder, words: list[int]) -> Mask | None:
    """Lanes of D that keep their values: bit i of word j is lane 32 j + i.

    Raises:
        UnsupportedInstruction: eight words, for two CTAs, that are not all zero: the ISA does not
            say which belong to which CTA.
    """
    if not any(words):
        return None
    if len(words) > _MASK_WORDS[1]:
        b.fail("got a disable-output-lane mask other than 0 with cta_group::2")
    bits = np.array(words, np.uint32)[:, None] >> np.arange(32, dtype=np.uint32) & np.uint32(1)
    return bits.ravel().astype(bool)


@lru_cache(maxsize=1024)
def _descriptor(kind: str, idesc: int, cta_group: int) -> InstructionDescriptor:
    desc = decode(kind, idesc)
    validate(desc, cta_group)
    if desc.sparse:
        raise KernelFault("tcgen05.mma: idesc says that A is sparse, but the opcode has no .sp")
    return desc


@dataclass(frozen=True, slots=True)
class _Words:
    """The operands of one thread."""

    d: int
    """Address in tensor memory."""
    a: int
    """Matrix descriptor, or address in tensor memory."""
    b: int
    idesc: int
    accumulates: bool
    scales: tuple[int, ...]
    """Addresses of the scale factors of A and of B."""
    disabled: Mask | None


def _start(warp: Warp, form: _Form, lane: int, words: _Words) -> None:
    """Check everything, then put the work into the warp's pipe.

    Raises:
        KernelFault: a descriptor, a shape or an address that is not allowed.
        UnsupportedInstruction: what is not emulated.
    """
    ctas = group_of(warp, form.cta_group)
    require_running(warp, ctas)
    try:
        desc, a, b = _describe(form, words)
    except UnsupportedInstruction as error:
        raise unsupported(warp.instruction, str(error)) from None
    d_lane, d_column = split_address(words.d)
    pipe = pipe_of(warp, form.cta_group)
    product = Product(
        desc=desc,
        ctas=ctas,
        memories=tuple(tensor_memory(cta) for cta in ctas),
        tiles=tiles(desc.m, desc.n, form.cta_group, d_lane),
        d_column=d_column,
        a=a if isinstance(a, SharedOperand) else _a_column(warp, a, d_lane),
        b=b,
        accumulates=words.accumulates,
        down_scale=form.down_scale,
        disabled=words.disabled,
        scales=_scales(warp, form, desc, words.scales),
        fused=warp.cta.cluster.grid.tensor_core == "fused",
        access=pipe.next_access(warp),
    )
    _check_places(warp, product)
    label = f"mma {desc.m}x{desc.n}x{desc.k} {form.kind}"
    pipe.submit(warp, lane, product.perform, label, (desc.m, desc.n, desc.k))


def _describe(
    form: _Form, words: _Words
) -> tuple[InstructionDescriptor, SharedOperand | int, SharedOperand]:
    """The decoded idesc, A and B.

    Raises:
        KernelFault, UnsupportedInstruction: see :func:`_start`.
    """
    desc = _descriptor(form.kind, words.idesc, form.cta_group)
    rows_a, rows_b = desc.m // form.cta_group, desc.n // form.cta_group
    b = shared_operand(words.b, rows_b, desc.b_mn_major, form.kind, desc.b_format)
    if not form.a_in_tmem:
        return desc, shared_operand(words.a, rows_a, desc.a_mn_major, form.kind, desc.a_format), b
    if desc.a_mn_major:
        raise KernelFault("tcgen05.mma: A is in tensor memory, but idesc says MN-major")
    return desc, words.a, b


def _a_column(warp: Warp, address: int, d_lane: int) -> int:
    lane, column = split_address(address)
    if lane != d_lane:
        raise warp.fault(f"tcgen05.mma: A: got lane {lane}, D has lane {d_lane}; must be the same")
    return column


def _scales(
    warp: Warp, form: _Form, desc: InstructionDescriptor, addresses: tuple[int, ...]
) -> BlockScales | None:
    if not addresses:
        return None
    columns = []
    for side, address in zip("AB", addresses, strict=True):
        lane, column = split_address(scale_address(address))
        if lane:
            raise warp.fault(f"tcgen05.mma: scale factors of {side}: got lane {lane}, must be 0")
        columns.append(column)
    for side, first in (("A", desc.a_scale_id), ("B", desc.b_scale_id)):
        if first % form.blocks or first + form.blocks > _CELL_BYTES:
            raise warp.fault(
                f"tcgen05.mma: scale factors of {side}: got id {first}, allowed: multiples of "
                f"{form.blocks} below {_CELL_BYTES}"
            )
    return BlockScales(desc, form.blocks, *columns)


def _check_places(warp: Warp, product: Product) -> None:
    """Refuse operands outside of the memories.

    Raises:
        KernelFault: bytes outside shared memory, or columns that are not allocated.
    """
    for cta in product.ctas:
        cta.shared.check(warp, product.b.low, product.b.high)
        if isinstance(product.a, SharedOperand):
            cta.shared.check(warp, product.a.low, product.a.high)
    rows = product.desc.m // len(product.ctas)
    for tile in product.tiles:
        memory = product.memories[tile.cta]
        memory.check(warp, product.d_region(tile), "tcgen05.mma: D")
        a_region = product.a_region(tile)
        if a_region is not None:
            memory.check(warp, a_region, "tcgen05.mma: A")
            if a_region.meets(product.d_region(tile)):
                warp.report(
                    FindingKind.RACE,
                    f"{memory.name}: tcgen05.mma reads A from columns that it writes D to: "
                    f"{a_region} and {product.d_region(tile)}",
                )
        if product.scales is not None:
            for region in product.scales.regions(tile, rows):
                memory.check(warp, region, "tcgen05.mma: scale factors")
