"""The 128-byte descriptor of a TMA tensor (``CUtensorMap``), tiled mode.

Eight little-endian 64-bit words w0 to w7; words 8 to 15 of a descriptor that CuTe-DSL's host code
builds are stack garbage and are never read here. In those of a driver, word 8 has the bytes of the
box and word 9 the alignment of its shared memory.

========  =====================================================================================
w0        global address
w1        4-6 rank - 1, 7-10 element type, 11-12 interleave, 13-14 swizzle, 15 fill with NaN,
          16 round f32 to tf32, 17-18 L2 promotion, 19-20 swizzle atomicity, 21 set where the
          tensor spans 128 KiB or more, 32-63 stride 1 / 16
w2        stride 2 / 16, stride 3 / 16
w3        stride 4 / 16, then bits 36-39 of strides 1 to 4, four bits each
w4 to w6  dimension - 1, 32 bits each; w6 32-55 element strides - 1, 56-63 box 0 - 1
w7        box 1 - 1 to box 4 - 1, eight bits each
========  =====================================================================================

Source: varied and read off CuTe-DSL 4.8.1's host code (rank, types 0 to 10, swizzle, strides, box,
tf32), which is the same for sm_90a and sm_100a; dtype numbers, those of elements of 4 and 6 bits
(11 to 13) among them, also PTX ISA 9.7.9.27 (``tensormap.replace``). Driver 580.159.04 of an H200
makes the same words 0 to 7 of each field that it takes (measured 2026-11-21,
tests/emulator/hopper/record.py, ``driver-map/*``), element strides, interleave, NaN fill and L2
promotion among them, but leaves bits 1 and 21 of w1 at 0; copies do the same with and without. The
atomicity, which that driver refuses for sm_90, is where ptxas 13.0 writes it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod

from fa4gen.core.errors import KernelFault
from fa4gen.emulator.layouts.swizzle import Swizzle

TENSOR_MAP_BYTES = 128

ELEMENT_BYTES = {
    "u8": 1, "u16": 2, "u32": 4, "s32": 4, "u64": 8, "s64": 8,
    "f16": 2, "f32": 4, "f32.ftz": 4, "f64": 8, "bf16": 2,
}  # fmt: skip
"""Bytes of each element type, in the order of their numbers."""


@dataclass(frozen=True, slots=True)
class SubByte:
    """A type of elements that come in chunks of 16 (PTX ISA 5.5.1.1)."""

    bits: int
    """Of one element."""
    shared_bytes: int
    """What 16 elements take in shared memory, where padding may follow them."""

    @property
    def chunk_bytes(self) -> int:
        """What 16 elements take in global memory."""
        return _CHUNK_ELEMENTS * self.bits // 8

    @property
    def padded(self) -> bool:
        """Whether they take more in shared memory."""
        return self.shared_bytes > self.chunk_bytes


SUB_BYTE = {"b4x16": SubByte(4, 8), "b4x16_p64": SubByte(4, 16), "b6x16_p32": SubByte(6, 16)}
"""Element types of less than a byte, in the order of their numbers, which follow those above."""

_CHUNK_ELEMENTS = 16
_PADDED_BOX, _PADDED_ALIGNMENT = 128, 32
_DTYPES = (*ELEMENT_BYTES, *SUB_BYTE)
_SWIZZLES = (0, 32, 64, 128)
_ATOMICITIES = ("16B", "32B", "32B+8B", "64B")
_NARROW = {0: Swizzle.NONE, 32: Swizzle.B32, 64: Swizzle.B64}
_WIDEST = {
    "16B": Swizzle.B128,
    "32B": Swizzle.B128_ATOM32,
    "32B+8B": Swizzle.B128_ATOM32_FLIP8,
    "64B": Swizzle.B128_ATOM64,
}
_MAX_RANK = 5
_MAX_BOX = 256
_MAX_ELEMENT_STRIDE = 8
_MAX_DIM = 1 << 32
_MAX_STRIDE = 1 << 40
_LARGE_TENSOR_BYTES = 128 << 10
_L2_PROMOTION_128B = 2


@dataclass(frozen=True, slots=True)
class TensorMap:
    """A tensor in global memory and the box that one TMA instruction copies.

    Dimension 0 is the innermost one. ``dims``, ``strides``, ``box`` and ``element_strides`` have
    ``rank`` entries.

    Raises:
        KernelFault: a field that hardware does not have or the driver refuses.
    """

    address: int
    """Of element 0; a multiple of 16."""
    dtype: str
    """``u8``, ``bf16`` ...: a key of :data:`ELEMENT_BYTES` or :data:`SUB_BYTE`."""
    dims: tuple[int, ...]
    """Elements."""
    strides: tuple[int, ...]
    """Bytes. The first is the size of an element (0 if less than one), the others are multiples of
    16."""
    box: tuple[int, ...]
    """Elements, 1 to 256 each."""
    element_strides: tuple[int, ...] = ()
    """Every how many elements are taken, 1 to 8; all 1 if left out."""
    swizzle: int = 0
    """Bytes of a row within which chunks are permuted: 0 (none), 32, 64 or 128."""
    swizzle_atomicity: str = "16B"
    """What stays together in a 128-byte swizzle: ``16B``, ``32B``, ``32B+8B`` or ``64B``."""
    interleave: int = 0
    """0: none, the only one supported."""
    oob_fill: str = "zero"
    """What loads give outside of the tensor: ``zero`` or ``nan``."""
    tf32: bool = False
    """Whether f32 elements are rounded to tf32 on their way to shared memory."""

    def __post_init__(self) -> None:
        if not self.element_strides:
            object.__setattr__(self, "element_strides", (1,) * len(self.dims))
        _check_shape(self)
        _check_modes(self)

    @property
    def rank(self) -> int:
        """Dimensions: 1 to 5."""
        return len(self.dims)

    @property
    def element_bytes(self) -> int:
        """Bytes of an element; 0 if it is less than one."""
        return ELEMENT_BYTES.get(self.dtype, 0)

    @property
    def element_bits(self) -> int:
        """Bits of an element."""
        narrow = SUB_BYTE.get(self.dtype)
        return narrow.bits if narrow else 8 * ELEMENT_BYTES[self.dtype]

    @property
    def box_bytes(self) -> int:
        """What one copy of a whole box counts on its mbarrier, elements out of bounds included.

        Padding in shared memory does not count (CuTe-DSL, ``TensorMap.global_tx_bytes``).
        """
        counts = (
            -(-size // step) for size, step in zip(self.box, self.element_strides, strict=True)
        )
        return prod(counts) * self.element_bits // 8

    @property
    def span_bytes(self) -> int:
        """Distance from the first byte of the tensor to behind its last."""
        outer = zip(self.dims[1:], self.strides[1:], strict=True)
        inner = self.dims[0] * self.element_bits // 8
        return inner + sum((size - 1) * stride for size, stride in outer)

    @property
    def permutation(self) -> Swizzle:
        """How shared-memory addresses are permuted."""
        return _NARROW.get(self.swizzle) or _WIDEST[self.swizzle_atomicity]


def decode(raw: bytes) -> TensorMap:
    """The tensor map in the first 64 of 128 bytes.

    Raises:
        KernelFault: not 128 bytes, or a field that no valid descriptor has.
    """
    if len(raw) != TENSOR_MAP_BYTES:
        raise KernelFault(f"tensor map: got {len(raw)} bytes, allowed: {TENSOR_MAP_BYTES}")
    w = struct.unpack("<8Q", raw[:64])
    rank = _bits(w[1], 4, 3) + 1
    if rank > _MAX_RANK:
        raise KernelFault(f"tensor map: got rank {rank}, allowed: 1 to {_MAX_RANK}")
    number = _bits(w[1], 7, 4)
    if number >= len(_DTYPES):
        raise KernelFault(
            f"tensor map: got element type {number}, allowed: 0 to {len(_DTYPES) - 1}; "
            "is this a tensor map at all?"
        )
    dims = (*_halves(w[4]), *_halves(w[5]), _bits(w[6], 0, 32))
    low = (_bits(w[1], 32, 32), *_halves(w[2]), _bits(w[3], 0, 32))
    high = [_bits(w[3], 32 + 4 * i, 4) for i in range(4)]
    strides = [part << 4 | top << 36 for part, top in zip(low, high, strict=True)]
    box = [_bits(w[6], 56, 8), *w[7].to_bytes(8, "little")[:4]]
    dtype = _DTYPES[number]
    return TensorMap(
        address=w[0],
        dtype=dtype,
        dims=tuple(size + 1 for size in dims[:rank]),
        strides=(ELEMENT_BYTES.get(dtype, 0), *strides[: rank - 1]),
        box=tuple(size + 1 for size in box[:rank]),
        element_strides=tuple(_bits(w[6], 32 + 3 * i, 3) + 1 for i in range(rank)),
        swizzle=_SWIZZLES[_bits(w[1], 13, 2)],
        swizzle_atomicity=_ATOMICITIES[_bits(w[1], 19, 2)],
        interleave=_bits(w[1], 11, 2),
        oob_fill="nan" if _bits(w[1], 15, 1) else "zero",
        tf32=bool(_bits(w[1], 16, 1)),
    )


def encode(tensor_map: TensorMap) -> bytes:
    """The 128 bytes of a tensor map, as CuTe-DSL's host code builds them; the last 64 are 0."""
    t, padding = tensor_map, (0,) * (_MAX_RANK - tensor_map.rank)
    dims = (*(size - 1 for size in t.dims), *padding)
    strides = (*t.strides[1:], *padding)
    box = (*(size - 1 for size in t.box), *padding)
    w = [t.address, 2, 0, 0, 0, 0, 0, 0]  # bit 1 of w1: in every map of CuTe-DSL, meaning unknown
    w[1] |= (t.rank - 1) << 4 | _DTYPES.index(t.dtype) << 7 | t.interleave << 11
    w[1] |= _SWIZZLES.index(t.swizzle) << 13 | (t.oob_fill == "nan") << 15 | t.tf32 << 16
    w[1] |= _L2_PROMOTION_128B << 17 | _ATOMICITIES.index(t.swizzle_atomicity) << 19
    w[1] |= (t.span_bytes >= _LARGE_TENSOR_BYTES) << 21
    w[1] |= (strides[0] >> 4 & 0xFFFFFFFF) << 32
    w[2] = (strides[1] >> 4 & 0xFFFFFFFF) | (strides[2] >> 4 & 0xFFFFFFFF) << 32
    w[3] = strides[3] >> 4 & 0xFFFFFFFF
    for i, stride in enumerate(strides):
        w[3] |= (stride >> 36) << 32 + 4 * i
    w[4], w[5], w[6] = dims[0] | dims[1] << 32, dims[2] | dims[3] << 32, dims[4]
    for i, step in enumerate(t.element_strides):
        w[6] |= (step - 1) << 32 + 3 * i
    w[6] |= box[0] << 56
    w[7] = int.from_bytes(bytes(box[1:]), "little")
    return struct.pack("<8Q", *w) + bytes(TENSOR_MAP_BYTES - 64)


def _bits(word: int, low: int, count: int) -> int:
    return word >> low & (1 << count) - 1


def _halves(word: int) -> tuple[int, int]:
    return word & 0xFFFFFFFF, word >> 32


def _check_shape(t: TensorMap) -> None:
    """Source: CUDA driver API, ``cuTensorMapEncodeTiled``, requirements of its arguments."""
    if not 1 <= t.rank <= _MAX_RANK:
        raise KernelFault(f"tensor map: got rank {t.rank}, allowed: 1 to {_MAX_RANK}")
    if t.dtype not in _DTYPES:
        raise KernelFault(f"tensor map: got element type {t.dtype!r}, allowed: {list(_DTYPES)}")
    if t.address % 16 or not 0 < t.address < 1 << 64:
        raise KernelFault(f"tensor map: got address {t.address:#x}, allowed: multiples of 16")
    for name, values, low, high in (
        ("dims", t.dims, 1, _MAX_DIM),
        ("box", t.box, 1, _MAX_BOX),
        ("element strides", t.element_strides, 1, _MAX_ELEMENT_STRIDE),
        ("strides", t.strides, 0, _MAX_STRIDE - 1),
    ):
        if len(values) != t.rank or not all(low <= value <= high for value in values):
            raise KernelFault(
                f"tensor map: got {name} {values}, allowed: {t.rank} values from {low} to {high}"
            )
    if t.strides[0] != t.element_bytes or any(stride % 16 for stride in t.strides[1:]):
        raise KernelFault(
            f"tensor map: got strides {t.strides} bytes, allowed: {t.element_bytes} (the size of "
            f"{t.dtype}), then multiples of 16"
        )
    if t.dtype in SUB_BYTE:
        _check_sub_byte(t, SUB_BYTE[t.dtype])


def _check_sub_byte(t: TensorMap, narrow: SubByte) -> None:
    """Source: as :func:`_check_shape`, the types ``16U4_ALIGN8B`` to ``16U6_ALIGN16B``."""
    if t.oob_fill != "zero" or t.tf32 or t.element_strides[0] != 1:
        raise KernelFault(
            f"tensor map: got fill {t.oob_fill!r}, tf32 {t.tf32}, element strides "
            f"{t.element_strides} for {t.dtype}, allowed: 'zero', False, 1 first"
        )
    if not narrow.padded:
        if t.dims[0] % 2:
            raise KernelFault(f"tensor map: got {t.dims[0]} elements of {t.dtype}, allowed: even")
        return
    wrong = [value for value in (t.address, *t.strides) if value % _PADDED_ALIGNMENT]
    if wrong or t.dims[0] % _PADDED_BOX or t.box[0] != _PADDED_BOX or t.swizzle not in {0, 128}:
        raise KernelFault(
            f"tensor map: got {t.dtype} at {t.address:#x} with dims {t.dims}, strides {t.strides}, "
            f"box {t.box}, swizzle {t.swizzle}, allowed: an address and strides that are multiples "
            f"of {_PADDED_ALIGNMENT}, a first dimension that is one of {_PADDED_BOX}, a box of "
            f"{_PADDED_BOX} there, swizzle 0 or 128"
        )


def _check_modes(t: TensorMap) -> None:
    """Source: as :func:`_check_shape`; the box's inner row must fit the swizzle's span."""
    if t.interleave:
        raise KernelFault(f"tensor map: got interleave {t.interleave}, emulated: 0 (none)")
    if t.swizzle not in _SWIZZLES or t.swizzle_atomicity not in _ATOMICITIES:
        raise KernelFault(
            f"tensor map: got swizzle {t.swizzle} of {t.swizzle_atomicity!r}, allowed: "
            f"{_SWIZZLES} of {_ATOMICITIES}"
        )
    if t.oob_fill not in {"zero", "nan"}:
        raise KernelFault(f"tensor map: got fill {t.oob_fill!r}, allowed: 'zero', 'nan'")
    inner = t.box[0] * t.element_bits // 8
    if inner % 16 or (t.swizzle and inner > t.swizzle):
        raise KernelFault(
            f"tensor map: got an inner box of {t.box[0]} x {t.element_bits} bits = {inner} bytes, "
            f"allowed: multiples of 16{f' up to {t.swizzle}' if t.swizzle else ''}"
        )
