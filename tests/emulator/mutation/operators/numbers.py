"""Sabotage of numbers: descriptors, addresses, coordinates, coefficients, register counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from fa4gen.ptx.ir import Address, Immediate, Instruction, Register
from mutation.code import Change, Code, Operator, address_moved, altered
from mutation.edits import Edit, with_operand

_LBO, _SBO, _SWIZZLE = 1 << 16, 1 << 32, 1 << 62
"""Lowest bits of fields of a matrix descriptor; offsets count 16 bytes (PTX ISA 9.7.15.5.1 and
9.7.16.4.1). The swizzle's bit 62 is its field's lowest for wgmma and its middle one for tcgen05."""
_OFFSET_STEP = 8
"""128 bytes: offsets stay aligned."""
_IDESC_BITS = (4, 7, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24, 25, 26, 27, 28)
"""Of an instruction descriptor: types of D, A and B, signs, transposes, N and M
(PTX ISA 9.7.16.4.2)."""
_COEFFICIENTS = ((0.65, 0.72), (0.21, 0.26), (0.05, 0.08))
"""Where the coefficients of x, x^2 and x^3 of a polynomial for 2^x on [0, 1) lie."""
_CENTRED = ((0.69, 0.695), (0.235, 0.26), (0.05, 0.06))
"""Where they lie if the range is [-0.5, 0.5]."""
_COEFFICIENT_ERROR = 0.01
_REGISTER_STEP = 8
_STEPS = {"ld": 4, "st": 4, "stmatrix": 16, "ldmatrix": 16, "cp": 128}
_MMA = ("wgmma.mma_async", "tcgen05.mma")


def _descriptors(code: Code) -> Iterator[tuple[Instruction, int]]:
    """MMAs with the operand numbers of their descriptors."""
    for inst in code.find(*_MMA):
        for at in (1, 2):
            operand = inst.operands[at]
            if isinstance(operand, Register) and operand.type == "b64":
                yield inst, at


def _descriptor(code: Code, change: tuple[str, int]) -> Iterator[Change]:
    return (altered(code, inst, (at,), change, 64) for inst, at in _descriptors(code))


def descriptor_start(code: Code) -> Iterator[Change]:
    """Read an operand from 16 bytes further on."""
    return _descriptor(code, ("add", 1))


def descriptor_step(code: Code) -> Iterator[Change]:
    """Read an operand from 32 bytes further on, which is the next step along K."""
    return _descriptor(code, ("add", 2))


def descriptor_leading(code: Code) -> Iterator[Change]:
    """Another leading-dimension byte offset."""
    return _descriptor(code, ("add", _OFFSET_STEP * _LBO))


def descriptor_stride(code: Code) -> Iterator[Change]:
    """Another stride-dimension byte offset."""
    return _descriptor(code, ("add", _OFFSET_STEP * _SBO))


def descriptor_swizzle(code: Code) -> Iterator[Change]:
    """Another swizzle."""
    return _descriptor(code, ("xor", _SWIZZLE))


def instruction_descriptor(code: Code) -> Iterator[Change]:
    """One bit of an instruction descriptor."""
    for inst in code.find("tcgen05.mma"):
        for bit in _IDESC_BITS:
            yield altered(code, inst, (3,), ("xor", 1 << bit), 32)


def tensor_column(code: Code) -> Iterator[Change]:
    """Another column of tensor memory."""
    for inst in code.find("tcgen05.ld", "tcgen05.st", "tcgen05.mma"):
        for at, operand in enumerate(inst.operands[:2]):
            if isinstance(operand, Address):
                yield address_moved(inst, at, 1)
                yield address_moved(inst, at, 32)


def coefficient(code: Code) -> Iterator[Change]:
    """A coefficient of the polynomial exp2, wherever it stands: that is off by up to 1 % then."""
    found: dict[int, list[tuple[Instruction, int, Immediate]]] = {}
    for inst in code.find("mov.b32", "fma"):
        for at, operand in enumerate(inst.operands):
            if not isinstance(operand, Immediate) or not operand.is_float or operand.bits != 32:
                continue
            if any(low < _value(operand) < high for low, high in _COEFFICIENTS):
                found.setdefault(operand.value, []).append((inst, at, operand))
    for places in found.values():
        first, _, operand = places[0]
        old = _value(operand)
        power = next(n for n, (low, high) in enumerate(_COEFFICIENTS, 1) if low < old < high)
        low, high = _CENTRED[power - 1]
        step = _COEFFICIENT_ERROR * (2**power if low < old < high else 1)
        for change in (step, -step):
            bits = int(np.float32(old + change).view(np.uint32))
            edit = {
                inst.index: (with_operand(inst, (at,), replace(operand, value=bits)),)
                for inst, at, operand in places
            }
            yield Change(first, f"{old:.6g} {change:+g}, at {len(places)} places", Edit(edit))


def _value(operand: Immediate) -> float:
    return float(np.uint32(operand.value).view(np.float32))


def more_registers(code: Code) -> Iterator[Change]:
    """Keep, or take, 8 registers a thread more."""
    for inst in code.find("setmaxnreg"):
        yield altered(code, inst, (0,), ("add", _REGISTER_STEP), 32)


def fewer_registers(code: Code) -> Iterator[Change]:
    """Keep, or take, 8 registers a thread less."""
    for inst in code.find("setmaxnreg"):
        yield altered(code, inst, (0,), ("add", -_REGISTER_STEP), 32)


def coordinate(code: Code) -> Iterator[Change]:
    """A coordinate of a tensor copy."""
    for inst in code.find("cp.async.bulk.tensor"):
        for at, operand in enumerate(inst.operands):
            if isinstance(operand, Address):
                for axis in range(len(operand.coordinates)):
                    yield altered(code, inst, (at, axis), ("add", 1), 32)


def cta_mask(code: Code) -> Iterator[Change]:
    """A bit of the mask of CTAs that a copy or a commit goes to."""
    for inst in code.find("cp.async.bulk", "tcgen05.commit"):
        if "multicast::cluster" in inst.parts:
            at = next(
                n
                for n, operand in enumerate(inst.operands)
                if (isinstance(operand, Register) and operand.type == "b16")
                or (isinstance(operand, Immediate) and n)
            )
            yield altered(code, inst, (at,), ("xor", 1), 16)
            yield altered(code, inst, (at,), ("xor", 2), 16)


def other_cta(code: Code) -> Iterator[Change]:
    """The same address in another CTA of the cluster."""
    return (altered(code, inst, (2,), ("xor", 1), 32) for inst in code.find("mapa"))


def shared_address(code: Code) -> Iterator[Change]:
    """An address in shared memory: the next word, row of a matrix, or line of 128 bytes."""
    kinds = ("ld.shared", "st.shared", "stmatrix", "ldmatrix", "cp.async.bulk.tensor", "st.async")
    for inst in code.find(*kinds):
        step = _STEPS[inst.parts[0]]
        vector = next((int(part[1:]) for part in inst.parts if part in {"v2", "v4"}), 1)
        for at, operand in enumerate(inst.operands[:3]):
            if isinstance(operand, Address) and not operand.coordinates:
                yield address_moved(inst, at, step * vector)


OPERATORS: dict[str, Operator] = {
    "descriptor-start": descriptor_start,
    "descriptor-step": descriptor_step,
    "descriptor-leading": descriptor_leading,
    "descriptor-stride": descriptor_stride,
    "descriptor-swizzle": descriptor_swizzle,
    "instruction-descriptor": instruction_descriptor,
    "tensor-column": tensor_column,
    "coefficient": coefficient,
    "more-registers": more_registers,
    "fewer-registers": fewer_registers,
    "coordinate": coordinate,
    "cta-mask": cta_mask,
    "other-cta": other_cta,
    "shared-address": shared_address,
}
