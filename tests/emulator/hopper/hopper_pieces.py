"""Pieces of PTX that kernels are built of.

No wait may hang a GPU: every loop counts its rounds, and one that gives up puts its number into
``%fail``, which the kernel stores for each thread, and goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from hopper_kernel import Agreement, Array, Arrays, Kernel, Launch, Output

from fa4gen.numerics.approx import Bound

ROUNDS = 4096
"""Tries of ``mbarrier.try_wait`` before a wait gives up; each suspends for some microseconds."""
HINT = 8192
"""Nanoseconds that one try may suspend the thread."""
_SIZES = {"b8": 1, "b16": 2, "b32": 4, "b64": 8, "pred": 1}


def wait(barrier: str, parity: int | str, number: int) -> str:
    """Wait for a phase of the mbarrier at ``[barrier]``; ``%fail`` gets ``number`` if it fails."""
    return f"""
{{ .reg .pred %done, %more; .reg .b32 %tries; mov.u32 %tries, 0;
AGAIN: mbarrier.try_wait.parity.shared::cta.b64 %done, [{barrier}], {parity}, {HINT};
@%done bra OVER;
add.u32 %tries, %tries, 1; setp.lt.u32 %more, %tries, {ROUNDS}; @%more bra AGAIN;
mov.u32 %fail, {number};
OVER: }}
"""


def init(*counts: int, at: int = 0, cluster: bool = False) -> str:
    """mbarriers from byte ``at`` of shared memory on, known to the CTA, or to the whole cluster."""
    inits = "".join(
        f"@%lead mbarrier.init.shared.b64 [%base+{at + 8 * i}], {count};\n"
        for i, count in enumerate(counts)
    )
    meet = CLUSTER_SYNC if cluster else "bar.sync 0;\n"
    return inits + "fence.mbarrier_init.release.cluster;\n" + meet


CLUSTER_SYNC = "barrier.cluster.arrive.release; barrier.cluster.wait.acquire;\n"
PROXY_FENCE = "fence.proxy.async.shared::cta;\n"


def lead(body: str) -> str:
    """``body`` for the first thread of the CTA alone."""
    return f"{{ @!%lead bra SKIP;\n{body}\nSKIP: }}\nbar.warp.sync 0xffffffff;\n"


def fill(offset: int, size: int, block: int, word: int = 0xA5A5A5A5) -> str:
    """Have the CTA's threads store ``word`` to ``size`` bytes of shared memory."""
    if size % (16 * block):
        raise ValueError(f"fill: got {size} bytes, allowed: multiples of 16 x {block}")
    stores = "".join(
        f"st.shared.v4.b32 [%to+{at}], {{{word}, {word}, {word}, {word}}};\n"
        for at in range(0, size, 16 * block)
    )
    place = f"mad.lo.u32 %to, %thr, 16, %base; add.u32 %to, %to, {offset};\n"
    return f"{{ .reg .b32 %to; {place}{stores}}}\n"


def copy_in(source: str, offset: int, size: int, block: int) -> str:
    """Copy ``size`` bytes from global memory at ``source`` to shared memory."""
    return _copy(source, offset, size, block, "ld.global.v4.b32 {w}, [%from+{at}];\n"
                 "st.shared.v4.b32 [%to+{at}], {w};\n")  # fmt: skip


def copy_out(target: str, offset: int, size: int, block: int) -> str:
    """Copy ``size`` bytes of shared memory to global memory at ``target``."""
    return _copy(target, offset, size, block, "ld.shared.v4.b32 {w}, [%to+{at}];\n"
                 "st.global.v4.b32 [%from+{at}], {w};\n")  # fmt: skip


def _copy(far: str, offset: int, size: int, block: int, step: str) -> str:
    if size % 16:
        raise ValueError(f"copy: got {size} bytes, allowed: multiples of 16")
    words = "{%w0, %w1, %w2, %w3}"
    whole, rest = divmod(size, 16 * block)
    steps = "".join(step.format(w=words, at=16 * block * i) for i in range(whole))
    if rest:
        last = step.format(w=words, at=16 * block * whole)
        steps += f"setp.ge.u32 %gone, %thr, {rest // 16}; @%gone bra SKIP;\n{last}SKIP: "
    return f"""
{{ .reg .pred %gone; .reg .b32 %to, %w<4>; .reg .b64 %from;
mad.lo.u32 %to, %thr, 16, %base; add.u32 %to, %to, {offset};
mad.wide.u32 %from, %thr, 16, {far};
{steps} }}
bar.sync 0;
"""


@dataclass(frozen=True)
class Lanewise:
    """Instructions that each thread executes by itself: one kernel for many forms of them.

    Attributes:
        forms: Lines of PTX that make ``%d`` of ``%a``, ``%b``, ``%c``, and of ``%p1`` if there is
            an input of bools.
        result: Type of ``%d``; ``pred`` is stored as a byte.
        inputs: Arrays of one length, a multiple of 32.
        after: PTX that changes ``%d`` in the end.
    """

    name: str
    question: str
    forms: Sequence[str]
    result: str
    inputs: dict[str, Array]
    agreement: Agreement = Agreement.BITS
    bounds: Sequence[Bound] = ()
    why: str = ""
    after: str = ""
    expected: dict[str, object] = field(default_factory=dict)
    """By form: a NumPy function of the inputs' bits that gives the result's."""

    def kernel(self) -> Kernel:
        """The kernel, whose output ``d`` has a row for each form."""
        count = len(next(iter(self.inputs.values())))
        block = next(n for n in (1024, 768, 512, 256, 128, 96, 64, 32) if count % n == 0)
        size = _SIZES[self.result]
        lines = [self._load(name, value) for name, value in self.inputs.items()]
        lines.append(f".reg .b64 %at; mad.wide.u32 %at, %id, {size}, %d;")
        for row, form in enumerate(self.forms):
            lines.append(self._store(form, row * count * size))
        dtype = f"uint{8 * size}"
        output = Output((len(self.forms), count), dtype, self.agreement, bounds=tuple(self.bounds))
        return Kernel(
            name=self.name,
            question=self.question,
            body="\n".join(lines),
            arguments={name: self._stored(value) for name, value in self.inputs.items()},
            outputs={"d": output},
            launch=Launch(block=block, grid=(count // block, 1, 1)),
            expected=self._expected if len(self.expected) == len(self.forms) else None,
            why=self.why,
        )

    @staticmethod
    def _stored(value: Array) -> Array:
        return value.astype(np.uint8) if value.dtype == bool else value

    @staticmethod
    def _load(name: str, value: Array) -> str:
        size = value.dtype.itemsize
        place = f"{{ .reg .b64 %at; mad.wide.u32 %at, %id, {size}, %{name};"
        if value.dtype == bool:
            return (
                f".reg .b16 %h_{name}; {place} ld.global.u8 %h_{name}, [%at]; }}"
                f" setp.ne.u16 %p1, %h_{name}, 0;"
            )
        return f".reg .b{8 * size} %v_{name}; {place} ld.global.b{8 * size} %v_{name}, [%at]; }}"

    def _store(self, form: str, offset: int) -> str:
        text = form
        for name in self.inputs:
            text = text.replace(f"%{name}", f"%v_{name}")
        text = text.replace("%d", "%out") + self.after.replace("%d", "%out")
        if self.result == "pred":
            return (
                f"{{ .reg .pred %out; .reg .b16 %bit; {text} selp.b16 %bit, 1, 0, %out;"
                f" st.global.u8 [%at+{offset}], %bit; }}"
            )
        return (
            f"{{ .reg .{self.result} %out; {text} st.global.{self.result} [%at+{offset}], %out; }}"
        )

    def _expected(self, inputs: Arrays) -> Arrays:
        rows = []
        with np.errstate(all="ignore"):
            for form in self.forms:
                function = self.expected[form]
                assert callable(function)
                rows.append(np.asarray(function(**inputs)))
        return {"d": np.stack(rows)}
