"""Mutants that change nothing: rules that say so, each from what the good kernel was seen to do.

A rule is asked only about mutants that nothing has noticed. It must not rest on what it is to
judge: that the emulator reports no race proves nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from fa4gen.emulator.layouts.instruction_descriptor import decode as decode_instruction
from fa4gen.emulator.layouts.operand import operand_chunks
from fa4gen.emulator.layouts.smem_descriptor import decode_tcgen05, decode_wgmma
from fa4gen.ptx.ir import Immediate, Instruction, Label, Pair
from mutation.code import Code, Mutant
from mutation.edits import apply
from mutation.facts import site_of
from mutation.inert import PURE, is_mute, is_peek, is_unseen, read, slots_of, written
from mutation.machine import Machine
from mutation.trails import bulk_groups, last_wait, register_fence

Rule = Callable[[Machine, Mutant], str]

_WGMMA_ROWS, _WGMMA_MAJORS, _BITS, _K = 64, 2, 16, 16
_LEADING_STEP = 8 << 16
_WARP, _MORE = 32, 8
_ARRIVALS = frozenset(
    (
        *("drop-arrive", "drop-expect-tx", "drop-commit", "duplicate-arrive"),
        *("shrink-expect-tx", "halve-expect-tx", "grow-expect-tx"),
    )
)
_HARMLESS = ("mbarrier.init", "prefetch", "prefetchu", "fence.mbarrier_init")


def equivalence(machine: Machine, mutant: Mutant) -> str:
    """Why ``mutant`` behaves as the good kernel; empty if no rule says so."""
    for rule in RULES:
        if reason := rule(machine, mutant):
            return reason
    return ""


def _vacuous_wait(machine: Machine, mutant: Mutant) -> str:
    waits = {"drop-wait", "move-wait", "other-mbarrier"}
    if mutant.operator == "flip-parity" and is_peek(machine.code, mutant.site):
        waits.add(mutant.operator)
    if mutant.operator not in waits or "try_wait" not in mutant.site.parts:
        return ""
    site = site_of(mutant.site)
    if site in machine.facts.proper_waits:
        return ""
    if mutant.operator == "other-mbarrier":
        after = machine.watch(apply(machine.code.module, mutant.edit))
        if site in after.proper_waits:
            return ""
    return "it only ever waits for the phase before the first, which is complete from the start"


def _unseen_phase(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator in _ARRIVALS:
        if is_unseen(machine.facts, site_of(mutant.site)):
            return "no wait ever sees the phases that it belongs to"
    elif mutant.operator == "other-mbarrier" and "try_wait" not in mutant.site.parts:
        site = site_of(mutant.site)
        after = machine.watch(apply(machine.code.module, mutant.edit))
        if is_unseen(machine.facts, site) and is_unseen(after, site):
            return "no wait ever sees the phases that it belongs to, neither before nor after"
    return ""


def _unseen_mbarrier(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator not in {"init-count", "drop-init"}:
        return ""
    if site_of(mutant.site) in machine.facts.awaited:
        return ""
    return "no wait ever sees a phase of that mbarrier"


def _init_fence(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "drop-init-fence":
        return ""
    place = mutant.site.index
    before = machine.code.instructions[place - 1]
    if before.opcode == mutant.site.opcode and place not in machine.code.targets:
        return f"the one at line {before.line} is directly before it"
    for inst in machine.code.instructions[mutant.site.index + 1 :]:
        if inst.opcode.startswith("fence.mbarrier_init"):
            return f"the one at line {inst.line} covers the same mbarriers"
        if inst.opcode.startswith("barrier.cluster"):
            return ""
        if inst.opcode.startswith("bar.sync") and machine.bench.launch.cluster == (1, 1, 1):
            return "bar.sync orders the initialisation already; there is no other CTA to tell"
    return ""


def _leading_offset(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "descriptor-leading":
        return ""
    at = int(mutant.what.split()[1])
    seen = machine.facts.operands[site_of(mutant.site)]
    if seen and all(_ignores_leading(mutant.site, dict(values), at) for values in seen):
        return "the layout of that operand has no leading offset: the addresses are the same"
    return ""


def _ignores_leading(inst: Instruction, values: dict[int, int], at: int) -> bool:
    """Whether the addresses of an operand stay the same with another leading offset."""
    if inst.parts[0] == "wgmma":
        literals = [each.value for each in inst.operands[4:] if isinstance(each, Immediate)]
        majors = literals[2:] if len(literals) == 2 + _WGMMA_MAJORS else [0, *literals[2:]]
        shape = inst.parts[4]
        rows = _WGMMA_ROWS if at == 1 else int(shape[4 : shape.index("k")])
        decode, mn_major = decode_wgmma, bool(majors[at - 1])
    else:
        kind = next(part for part in inst.parts if part.startswith("kind::"))
        idesc = decode_instruction(kind.removeprefix("kind::"), values[3])
        ctas = 2 if "cta_group::2" in inst.parts else 1
        rows = (idesc.m if at == 1 else idesc.n) // ctas
        decode, mn_major = decode_tcgen05, idesc.a_mn_major if at == 1 else idesc.b_mn_major
    before, after = decode(values[at]), decode(values[at] + _LEADING_STEP)
    return np.array_equal(
        operand_chunks(before, rows, _K, _BITS, mn_major),
        operand_chunks(after, rows, _K, _BITS, mn_major),
    )


def _knows_already(machine: Machine, mutant: Mutant) -> str:
    """Leans on the emulator's clocks, but not on its checks of accesses."""
    facts, site = machine.facts, site_of(mutant.site)
    if mutant.operator in {"drop-wait", "move-wait"}:
        alone = True
    elif mutant.operator in {"flip-parity", "other-mbarrier"}:
        # A wrong no costs time only: the wait that loops comes then.
        alone = is_peek(machine.code, mutant.site)
    elif mutant.operator == "drop-bar-sync":
        alone = all(each.sites == {site} for each in facts.meetings if site in each.sites)
    else:
        return ""
    if not alone or site in facts.teaches:
        return ""
    return "whenever it is executed, other waits have already told all that it tells"


def _registers(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator == "fewer-registers":
        return "PTX registers are virtual: how many fit is between setmaxnreg and ptxas"
    per_thread = machine.bench.launch.regs_per_thread
    if mutant.operator != "more-registers" or per_thread is None:
        return ""
    threads = int(np.prod(machine.bench.launch.block))
    code, wanted = machine.code.instructions, 0
    warps = machine.histories[: threads // _WARP]
    for history in warps:
        last = next((at for at in reversed(history) if code[at].parts[0] == "setmaxnreg"), None)
        literal = None if last is None else code[last].operands[0]
        wanted += literal.value if isinstance(literal, Immediate) else per_thread
        wanted += _MORE if last == mutant.site.index else 0
    if wanted > per_thread * len(warps):
        return ""
    return "the CTA has registers to spare: everybody still gets what it asks for"


def _permit(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "drop-relinquish":
        return ""
    if len(list(machine.code.find("tcgen05.alloc"))) > 1:
        return ""
    return "the CTA allocates once, and exiting gives the permit up as well"


def _nothing_to_bring(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "drop-wait-ld" or site_of(mutant.site) in machine.facts.brings:
        return ""
    return "every value that was loaded has been used before it, so it has arrived"


def _nothing_to_show(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "drop-proxy-fence" or site_of(mutant.site) in machine.facts.shows:
        return ""
    return "there is no ordinary write that it could show: it stands behind reads only"


def _renamed(machine: Machine, mutant: Mutant) -> str:
    """All warps of a round go to another barrier together, and nobody else is there."""
    if mutant.operator != "barrier-number":
        return ""
    site, meetings = site_of(mutant.site), machine.facts.meetings
    mine = [each for each in meetings if site in each.sites]
    for round_ in mine:
        if round_.sites != {site}:
            return ""
        for other in meetings:
            same = other.cta == round_.cta and other.number == round_.number ^ 1
            if same and other.start <= round_.end and other.end >= round_.start:
                return ""
    return "all warps of its rounds change over together, to a barrier that is free meanwhile"


def _same_value(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "swap-selp" or site_of(mutant.site) in machine.facts.unequal:
        return ""
    return "both values are equal whenever it is executed"


def _dead_value(machine: Machine, mutant: Mutant) -> str:
    if mutant.operator != "swap-selp":
        return ""
    if written(mutant.site) & _live(machine):
        return ""
    return "nothing that is executed depends on the value"


@lru_cache(maxsize=1)
def _live(machine: Machine) -> frozenset[int]:
    """Registers that some executed instruction with an effect depends on, at any distance."""
    live: set[int] = set()
    pure = []
    for inst in machine.code.instructions:
        if not machine.reached(inst) and inst.guard is None:
            continue
        if inst.guard is not None:
            live.add(inst.guard.register.slot)
        if inst.parts[0] in PURE:
            pure.append((written(inst), read(inst)))
        else:
            live |= slots_of(inst.operands)
    before = -1
    while len(live) != before:
        before = len(live)
        for results, sources in pure:
            if results & live:
                live |= sources
    return frozenset(live)


def _harmless_region(machine: Machine, mutant: Mutant) -> str:
    """Other lanes or warps initialise mbarriers alike, fetch ahead, or signal for nobody."""
    if mutant.operator not in {"drop-elect", "invert-guard"}:
        return ""
    branches = list(_guards(machine.code, mutant.site))
    if not branches:
        return ""
    regions = [list(_region(machine.code, each)) for each in branches]
    for inst in (inst for region in regions for inst in region):
        kind = inst.opcode
        inert = kind.startswith(_HARMLESS) or inst.parts[0] in PURE or is_mute(machine.facts, inst)
        if not inert or inst.parts[0] == "bra":
            return ""
    if not all(regions):
        return ""
    return "what it guards does no harm: equal initialisations, prefetches, unseen signals"


def _guards(code: Code, inst: Instruction) -> Iterator[Instruction]:
    """The branches that a guard's inversion, or an election, decides."""
    if inst.parts[0] == "bra":
        yield inst
    elif inst.parts[0] == "elect":
        (pair,) = (each for each in inst.operands if isinstance(each, Pair))
        wanted = slots_of((pair.second,))
        for each in code.instructions[inst.index + 1 : inst.index + 4]:
            if each.opcode == "not.pred" and read(each) <= wanted:
                wanted |= written(each)
            if each.guard is not None and each.guard.register.slot in wanted:
                yield each


def _region(code: Code, branch: Instruction) -> Iterator[Instruction]:
    """What a forward branch jumps over."""
    target = branch.operands[0] if branch.parts[0] == "bra" else None
    if isinstance(target, Label) and target.target > branch.index:
        yield from code.instructions[branch.index + 1 : target.target]


RULES: tuple[Rule, ...] = (
    _vacuous_wait,
    last_wait,
    register_fence,
    bulk_groups,
    _knows_already,
    _unseen_phase,
    _unseen_mbarrier,
    _init_fence,
    _leading_offset,
    _registers,
    _permit,
    _nothing_to_bring,
    _nothing_to_show,
    _renamed,
    _same_value,
    _dead_value,
    _harmless_region,
)
