"""mbarriers, named barriers, and the registers that ``setmaxnreg`` hands around."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from hopper_kernel import Agreement, Arrays, Kernel, Launch, Output
from hopper_pieces import init, lead, wait

BAR = "%base"
IMAGE = "where an mbarrier keeps its counts is no part of PTX"


def put(register: str, row: int, bits: int = 32, array: str = "out") -> str:
    """Store a value of the first thread."""
    return f"st.global.b{bits} [%{array}+{row * bits // 8}], {register};\n"


def script(name: str, question: str, count: int, steps: Sequence[str]) -> Kernel:
    """Operations of one thread on one mbarrier of ``count``.

    Each step is PTX that may leave a state in ``%rd10``. Behind each, the pending count of the
    state, if there is one, and what ``test_wait`` says of both parities are stored; a store to
    shared memory in between lets the emulator see that time goes on. Of a state the upper half is
    kept: in the lower one an H200 leaves what the register held before.
    """
    body = f"mbarrier.init.shared::cta.b64 [{BAR}], {count};\n"
    for row, step in enumerate(steps):
        body += step + "\n" if step.endswith(";") else f"{step};\n"
        gives_state = "%rd10" in step
        if gives_state:
            body += "mbarrier.pending_count.b64 %r10, %rd10;\n" + put("%r10", 4 * row)
        for parity in (0, 1):
            body += f"st.shared.b32 [{BAR}+64], {row};\n"
            body += f"mbarrier.test_wait.parity.shared::cta.b64 %p1, [{BAR}], {parity};\n"
            body += "selp.b32 %r10, 1, 0, %p1;\n" + put("%r10", 4 * row + 1 + parity)
        if gives_state:
            body += "shr.u64 %rd11, %rd10, 63; cvt.u32.u64 %r10, %rd11;\n"
            body += put("%r10", 4 * row + 3)
            body += "shr.u64 %rd11, %rd10, 32; cvt.u32.u64 %r10, %rd11;\n"
            body += put("%r10", row, array="states")
    return Kernel(
        name=f"barriers/{name}",
        question=question,
        body=lead(body),
        outputs={
            "out": Output((len(steps), 4), "uint32"),
            "states": Output((len(steps),), "uint32", Agreement.MODEL),
        },
        launch=Launch(smem=1024),
        why=IMAGE,
    )


ARRIVE = f"mbarrier.arrive.shared::cta.b64 %rd10, [{BAR}]"
EXPECT = f"mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [{BAR}], 64"
COMPLETE = f"mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [{BAR}], 64"
IMAGE_STEPS = (ARRIVE, ARRIVE, EXPECT, EXPECT, COMPLETE, COMPLETE, *[ARRIVE] * 4, EXPECT, ARRIVE)
"""What happens to an mbarrier of five arrivals whose memory is looked at."""


def mbarriers() -> Iterator[Kernel]:
    """Phases, counts, bytes."""
    question = "phases and parities of an mbarrier, and the states that arrivals give"
    yield script("phases", question, 3, [ARRIVE] * 8)
    many = f"mbarrier.arrive.release.cta.shared::cta.b64 %rd10, [{BAR}], "
    yield script(
        "counts", "arrivals that count several", 7, [f"{many}{n}" for n in (3, 4, 1, 6, 7, 2)]
    )
    drop = f"mbarrier.arrive_drop.release.cta.shared::cta.b64 %rd10, [{BAR}]"
    question = "arrive_drop takes effect in the next phase"
    yield script(
        "drops", question, 4, [ARRIVE, drop, ARRIVE, ARRIVE, ARRIVE, drop, ARRIVE, ARRIVE, ARRIVE]
    )
    both = f"mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %rd10, [{BAR}], 64"
    question = "a phase waits for arrivals and bytes, whichever come last"
    steps = [
        EXPECT,
        ARRIVE,
        COMPLETE,
        both,
        COMPLETE,
        COMPLETE,
        both,
        EXPECT,
        ARRIVE,
        COMPLETE,
        COMPLETE,
    ]
    yield script(
        "bytes",
        question,
        1,
        [*steps[:5], EXPECT, COMPLETE, ARRIVE, both, EXPECT, COMPLETE, COMPLETE],
    )
    stay = f"mbarrier.arrive.noComplete.release.cta.shared::cta.b64 %rd10, [{BAR}], 1"
    yield script("no-complete", "arrive.noComplete is an arrival", 4, [stay, stay, stay, ARRIVE])
    largest = (1 << 20) - 1
    yield script("largest", "the largest count", largest, [f"{many}{largest - 1}", ARRIVE, ARRIVE])
    yield by_states()
    yield images()
    yield phases_by_warps()
    yield of_copies()


def by_states() -> Kernel:
    """test_wait on states, the current one's and older ones."""
    body = f"mbarrier.init.shared::cta.b64 [{BAR}], 1;\n"
    for phase in range(3):
        body += f"mbarrier.arrive.shared::cta.b64 %rd{20 + phase}, [{BAR}];\n"
        body += f"mbarrier.test_wait.shared::cta.b64 %p1, [{BAR}], %rd{20 + phase};\n"
        body += "selp.b32 %r10, 1, 0, %p1;\n" + put("%r10", phase)
    for phase in range(3):
        body += f"st.shared.b32 [{BAR}+64], {phase};\n"
        body += f"mbarrier.test_wait.shared::cta.b64 %p1, [{BAR}], %rd{20 + phase};\n"
        body += "selp.b32 %r10, 1, 0, %p1;\n" + put("%r10", phase, array="old")
    return Kernel(
        name="barriers/test-wait-state",
        question="test_wait on the state of an arrival that completed its phase, and on older ones",
        body=lead(body),
        outputs={"out": Output((3,), "uint32"), "old": Output((3,), "uint32", Agreement.MODEL)},
        launch=Launch(smem=1024),
        why="PTX ISA 9.7.13.15.16: no state older than the preceding phase's may be asked for",
        expected=lambda inputs: {"out": np.ones(3, np.uint32)},
    )


def images() -> Kernel:
    """The 64 bits in memory, through ordinary loads, which the emulator refuses.

    On an H200 such a load sees an mbarrier as it was when it was last made invalid, or anything
    before: each is a new one, and made invalid before it is looked at.
    """
    mbarriers = [(count, 0) for count in (1, 2, 32, 1000, (1 << 20) - 1)]
    mbarriers += [(5, done) for done in range(len(IMAGE_STEPS) + 1)]
    body = ""
    for row, (count, done) in enumerate(mbarriers):
        place = f"%base+{8 * row}"
        body += f"mbarrier.init.shared::cta.b64 [{place}], {count};\n"
        body += "".join(f"{step.replace(BAR, place)};\n" for step in IMAGE_STEPS[:done])
        body += f"mbarrier.inval.shared::cta.b64 [{place}];\n"
    body += "membar.cta;\nnanosleep.u32 10000;\n"
    for row in range(len(mbarriers)):
        body += f"ld.volatile.shared.b64 %rd12, [%base+{8 * row}];\n" + put("%rd12", row, 64)
    return Kernel(
        name="barriers/memory-image",
        question="the 64 bits of an mbarrier: after init, arrivals, expected and completed bytes",
        body=lead(body),
        outputs={"out": Output((len(mbarriers),), "uint64", Agreement.FACT)},
        launch=Launch(smem=1024),
        why=IMAGE,
        only_gpu="the emulator reports ordinary loads of a live mbarrier",
    )


def phases_by_warps() -> Kernel:
    """A ring of warps: each waits for the one before it, many times."""
    warps, turns = 4, 6
    body = init(*[1] * warps) + "mov.u32 %r20, 0; mov.u32 %r21, 0;\n"
    body += "mad.lo.u32 %r22, %warp, 8, %base; add.u32 %r23, %warp, 3; and.b32 %r23, %r23, 3;\n"
    body += (
        "mad.lo.u32 %r23, %r23, 8, %base; setp.eq.u32 %p2, %lane, 0; setp.eq.u32 %p3, %warp, 0;\n"
    )
    for turn in range(turns):
        # Warp 0 begins each round; the others follow one another, and it waits for the last.
        body += f"@%p3 bra FIRST{turn};\n"
        body += wait("%r23", turn & 1, 1 + turn)
        body += f"FIRST{turn}: ld.shared.b32 %r20, [%base+64]; mad.lo.u32 %r20, %r20, 3, %warp;\n"
        body += (
            "bar.warp.sync 0xffffffff; @%p2 st.shared.b32 [%base+64], %r20; "
            "bar.warp.sync 0xffffffff;\n"
        )
        body += "@%p2 mbarrier.arrive.shared::cta.b64 _, [%r22];\n"
        body += f"@!%p3 bra NEXT{turn};\n" + wait("%r23", turn & 1, 11 + turn) + f"NEXT{turn}:\n"
    body = "@%lead st.shared.b32 [%base+64], 7;\nbar.sync 0;\n" + body
    body += "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 4, %out; st.global.b32 [%at], %r20; }\n"
    return Kernel(
        name="barriers/ring",
        question="four warps take turns through four mbarriers, phase after phase",
        body=body,
        outputs={"out": Output((32 * warps,), "uint32")},
        launch=Launch(block=32 * warps, smem=1024),
        expected=lambda inputs: {"out": _turns(warps, turns)},
        waits=True,
    )


def _turns(warps: int, turns: int) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    value, last = 7, [0] * warps
    for _ in range(turns):
        for warp in range(warps):
            value = (3 * value + warp) % (1 << 32)
            last[warp] = value
    return np.repeat(np.array(last, np.uint32), 32)


def of_copies() -> Kernel:
    """cp.async.mbarrier.arrive, with and without .noinc."""
    body = init(32, 1) + "{ .reg .b64 %at; .reg .b32 %to; mad.wide.u32 %at, %thr, 16, %data;\n"
    body += "mad.lo.u32 %to, %thr, 16, %base; cp.async.cg.shared.global [%to+1024], [%at], 16; }\n"
    body += "cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%base];\n" + wait("%base", 0, 1)
    body += "{ .reg .b64 %at; .reg .b32 %from; mad.wide.u32 %at, %thr, 4, %out;\n"
    body += "xor.b32 %from, %thr, 31; mad.lo.u32 %from, %from, 16, %base;\n"
    body += "ld.shared.b32 %r10, [%from+1024]; st.global.b32 [%at], %r10; }\n"
    body += "cp.async.mbarrier.arrive.shared::cta.b64 [%base+8];\n"
    body += "@%lead mbarrier.arrive.shared::cta.b64 _, [%base+8];\n" + wait("%base+8", 0, 2)
    data = np.arange(128, dtype=np.uint32) * np.uint32(0x01000193)
    return Kernel(
        name="barriers/cp-async-arrive",
        question="cp.async tells an mbarrier; without .noinc the count grows by itself",
        body=body,
        arguments={"data": data},
        outputs={"out": Output((32,), "uint32")},
        launch=Launch(smem=2048),
        expected=lambda inputs: {"out": inputs["data"][::4][::-1].copy()},
        waits=True,
    )


def named() -> Iterator[Kernel]:
    """Named barriers."""
    block, word = (
        128,
        "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 4, %out; st.global.b32 [%at], %r20; }\n",
    )
    body = "setp.lt.u32 %p2, %lane, 5; setp.eq.u32 %p3, %warp, 2;\nmov.u32 %r20, 0;\n"
    body += "barrier.cta.red.popc.aligned.u32 %r20, 1, 128, %p2;\n"
    for number, (operation, predicate) in enumerate(
        (("and", "%p2"), ("or", "%p2"), ("and", "%p4"), ("or", "%p3"))
    ):
        body += "setp.eq.u32 %p4, 0, 0;\n"
        body += f"barrier.cta.red.{operation}.aligned.pred %p5, {2 + number}, {predicate};\n"
        body += f"selp.b32 %r10, {256 << number}, 0, %p5; or.b32 %r20, %r20, %r10;\n"
    yield Kernel(
        name="barriers/red",
        question="barrier.red: popc, and, or",
        body=body + word,
        outputs={"out": Output((block,), "uint32")},
        launch=Launch(block=block),
        expected=lambda inputs: {"out": np.full(block, 20 | 512 | 1024 | 2048, np.uint32)},
    )
    yield counted_twice()
    # Producers arrive, consumers wait: numbers and counts come from registers.
    body = (
        "@%lead st.shared.b32 [%base+4], 0;\nbar.sync 0;\nmov.u32 %r21, 3; "
        "mov.u32 %r22, 64; mov.u32 %r20, 0;\n"
    )
    body += "setp.eq.u32 %p2, %warp, 0; setp.eq.u32 %p3, %warp, 1; setp.gt.u32 %p4, %warp, 1;\n"
    body += (
        "@%p4 bra DONE;\n@%p3 bra CONSUMER;\n@%lead st.shared.b32 [%base+4], 99;\n"
        "bar.arrive %r21, %r22;\nbra DONE;\n"
    )
    body += "CONSUMER: bar.sync %r21, %r22; ld.shared.b32 %r20, [%base+4];\nDONE:\n"
    yield Kernel(
        name="barriers/arrive-and-sync",
        question="bar.arrive of one warp lets another's bar.sync of 64 threads go on",
        body=body + word,
        outputs={"out": Output((block,), "uint32")},
        launch=Launch(block=block, smem=64),
        expected=lambda inputs: {
            "out": np.where(np.arange(block) // 32 == 1, 99, 0).astype(np.uint32)
        },
    )


ROUNDS = 20000
"""Rounds of a warp that watches a flag: a few milliseconds."""


def counted_twice() -> Kernel:
    """A warp that arrives and then waits is counted twice.

    Warp 0 arrives at a barrier of 96 threads and waits there, warp 1 waits there, and warp 2
    watches whether they come out. Only if they do not within its patience does it arrive as well,
    so that nobody waits for ever.
    """
    body = "@%lead st.shared.b32 [%base], 0;\nbar.sync 0;\nmov.u32 %r20, 0;\n"
    body += "setp.eq.u32 %p1, %warp, 2; @%p1 bra WATCH;\n"
    body += "setp.eq.u32 %p2, %warp, 1; @%p2 bra SYNC;\nbar.arrive 1, 96;\n"
    body += "SYNC: bar.sync 1, 96;\n@%lead st.relaxed.cta.shared.b32 [%base], 1;\nbra DONE;\n"
    body += "WATCH: mov.u32 %r21, 0;\nLOOP: ld.relaxed.cta.shared.b32 %r22, [%base];\n"
    body += "setp.ne.u32 %p3, %r22, 0; @%p3 bra CAME;\nadd.u32 %r21, %r21, 1; nanosleep.u32 100;\n"
    body += (
        f"setp.lt.u32 %p4, %r21, {ROUNDS}; @%p4 bra LOOP;\nmov.u32 %r20, 1;\nbar.arrive 1, 96;\n"
    )
    body += "bra DONE;\nCAME:\nDONE:\n"
    body += "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 4, %out; st.global.b32 [%at], %r20; }\n"
    return Kernel(
        name="barriers/counted-twice",
        question="bar.arrive and then bar.sync of one warp count it twice",
        body=body,
        outputs={"out": Output((96,), "uint32")},
        launch=Launch(block=96, smem=64),
        expected=lambda inputs: {"out": np.zeros(96, np.uint32)},
    )


def registers() -> Iterator[Kernel]:
    """setmaxnreg as warp-specialised kernels use it: what is taken has been given before."""
    body = "shr.u32 %r10, %warp, 2; setp.eq.u32 %p1, %r10, 0; mov.u32 %r20, 0;\n@!%p1 bra MORE;\n"
    body += "setmaxnreg.dec.sync.aligned.u32 40; mov.u32 %r20, 40; bra DONE;\n"
    body += "MORE: setmaxnreg.inc.sync.aligned.u32 232; mov.u32 %r20, 232;\nDONE:\n"
    body += "{ .reg .b64 %at; mad.wide.u32 %at, %thr, 4, %out; st.global.b32 [%at], %r20; }\n"
    yield Kernel(
        name="barriers/setmaxnreg",
        question="3 x 168 registers become 40 + 2 x 232 (ptx.md question 11, the safe part)",
        body=body,
        outputs={"out": Output((384,), "uint32")},
        launch=Launch(block=384, max_registers=168),
        expected=lambda inputs: {"out": np.where(np.arange(384) < 128, 40, 232).astype(np.uint32)},
    )


def kernels() -> Iterator[Kernel]:
    """Every kernel of this module."""
    for part in (mbarriers, named, registers):
        yield from part()


__all__ = ["Arrays", "kernels"]
