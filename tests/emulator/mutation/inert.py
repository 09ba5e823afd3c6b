"""Instructions whose effects nobody sees."""

from __future__ import annotations

from fa4gen.ptx.ir import Instruction, Pair, Register, Vector
from mutation.code import Code
from mutation.facts import Facts, Site, site_of

PURE = frozenset(
    (
        *("mov", "add", "sub", "mul", "mad", "fma", "neg", "abs", "min", "max", "selp", "setp"),
        *("and", "or", "xor", "not", "shl", "shr", "shf", "cvt", "cvta", "prmt", "bfe", "bfi"),
        *("lop3", "rcp", "ex2", "lg2", "mapa", "popc", "clz", "div", "rem", "sad", "dp4a"),
    )
)
"""Mnemonics whose only effect is their first operand."""
_IDLE = ("bra", "ret", "exit", "shfl", "elect", "griddepcontrol", "bar.warp", "ld.param")
"""What else a warp may do that nobody notices."""


def is_inert(facts: Facts, inst: Instruction) -> bool:
    """Whether an instruction only computes, jumps, or signals what nobody waits for."""
    return inst.parts[0] in PURE or inst.opcode.startswith(_IDLE) or is_mute(facts, inst)


def is_mute(facts: Facts, inst: Instruction) -> bool:
    """Whether it is an arrival that nobody waits for."""
    return inst.opcode.startswith("mbarrier.arrive") and is_unseen(facts, site_of(inst))


def is_unseen(facts: Facts, site: Site) -> bool:
    """Whether an instruction signals phases, and no wait sees any of them."""
    return site in facts.arrivals and facts.arrivals[site].isdisjoint(facts.observed)


def is_peek(code: Code, inst: Instruction) -> bool:
    """Whether a wait that does not loop asks first, and one that does follows if it says no."""
    after = code.instructions[inst.index + 1 : inst.index + 40]
    asks = ".acquire" in inst.opcode
    return asks and any("try_wait" in each.parts for each in after)


def written(inst: Instruction) -> set[int]:
    """The registers that a pure instruction sets."""
    return slots_of(inst.operands[:1])


def read(inst: Instruction) -> set[int]:
    """The registers that a pure instruction uses."""
    return slots_of(inst.operands[1:])


def slots_of(operands: tuple[object, ...]) -> set[int]:
    """All registers that some operands name."""
    found: set[int] = set()
    for each in operands:
        if isinstance(each, Register):
            found.add(each.slot)
        elif isinstance(each, Vector):
            found |= slots_of(each.items)
        elif isinstance(each, Pair):
            found |= slots_of((each.first, each.second))
        else:
            inner = [getattr(each, name, None) for name in ("base", "register")]
            found |= slots_of(tuple(inner for inner in inner if inner is not None))
            found |= slots_of(getattr(each, "coordinates", ()))
    return found
