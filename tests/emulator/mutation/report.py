"""The result of a run of the whole suite, as a document."""

from __future__ import annotations

from collections import Counter, defaultdict

from mutation.benches import BENCHES
from mutation.operators import OPERATORS
from mutation.suite import Outcome, Part, all_arguments, outcomes, share_noticed

_INTRODUCTION = """\
# Sabotaged kernels

Is the emulator any good at finding mistakes? Good kernels are damaged, one instruction at a time,
and emulated. A mutant counts as noticed if the emulator reports anything at all: a finding, a
deadlock, a fault, results that depend on the policy, or numbers further from float64 than allowed.

The operators are in `tests/emulator/mutation/operators`, the kernels and their problems in
`tests/emulator/mutation/benches.py`. Mutants are drawn at random from those whose instruction the
good kernel executes. Each runs until something is noticed: under `eager` (two kinds of inputs),
`lazy` and two seeds, and if that is not enough under eight more seeds.

A mutant that nothing notices is *equivalent* if it can be shown to do what the good kernel does: by
a rule (`equivalence.py`) from what the good kernel was seen to do, or by an argument made by hand
for this very PTX (`arguments.toml`). Whatever is left is a *survivor*: as far as is known a wrong
kernel, which the emulator takes for a right one."""


def document(parts: list[Part], command: str, surroundings: str) -> str:
    """The whole page.

    Args:
        command: That made it.
        surroundings: Date and versions.
    """
    everything = list(outcomes(parts))
    equivalent = [each for each in everything if each.equivalent]
    survivors = [each for each in everything if each.survives]
    noticed = sum(each.verdict.noticed for each in everything)
    real = len(everything) - len(equivalent)
    sections = [
        _INTRODUCTION,
        f"## Result\n\n`{command}`\n\n{surroundings}\n\n"
        f"**{noticed} of {real} mutants that change behaviour were noticed: "
        f"{100 * share_noticed(parts):.1f} %.** {len(everything)} were tried; {len(equivalent)} "
        f"are equivalent ({sum(each.by_hand for each in equivalent)} of them by hand), "
        f"surviving: {len(survivors)}.",
        "## What noticed them\n\n" + _notices(everything),
        "## Operators and kernels\n\nNoticed / tried without the equivalent ones; `=` and how many "
        "are equivalent. `sites` and `executed` count over all kernels.\n\n" + _table(parts),
        "## Survivors\n\n" + _survivors(survivors),
        "## Known survivors of other draws\n\n"
        "Those that were looked at; larger draws find more.\n\n" + _not_drawn(survivors),
        "## Equivalent mutants\n\n" + _reasons(equivalent),
    ]
    return "\n\n".join(sections) + "\n"


def _notices(everything: list[Outcome]) -> str:
    found = Counter(each.verdict.notice for each in everything if each.verdict.notice)
    late = sum(each.verdict.trial.startswith("eager") for each in everything)
    rows = [f"| {kind} | {count} |" for kind, count in found.most_common()]
    head = ["| what | mutants |", "|---|---|"]
    return "\n".join([*head, *rows]) + f"\n\nThe eager policy alone noticed {late}."


def _table(parts: list[Part]) -> str:
    cells = {(part.drawn.operator, part.drawn.kernel): part for part in parts}
    lines = [
        f"| operator | sites | executed | {' | '.join(BENCHES)} |",
        "|" + "---|" * (len(BENCHES) + 3),
    ]
    for operator in OPERATORS:
        row = [cells.get((operator, kernel)) for kernel in BENCHES]
        sites = sum(part.drawn.sites for part in row if part)
        executed = sum(part.drawn.executed for part in row if part)
        shown = " | ".join(_cell(part) for part in row)
        lines.append(f"| {operator} | {sites} | {executed} | {shown} |")
    return "\n".join(lines)


def _cell(part: Part | None) -> str:
    if part is None or not part.outcomes:
        return ""
    equal = sum(bool(each.equivalent) for each in part.outcomes)
    noticed = sum(each.verdict.noticed for each in part.outcomes)
    text = f"{noticed}/{len(part.outcomes) - equal}" if len(part.outcomes) > equal else ""
    return f"{text} ={equal}".strip() if equal else text


def _survivors(survivors: list[Outcome]) -> str:
    if not survivors:
        return "None."
    lines = ["| mutant | PTX line | instruction | change | why it is not seen |", "|" + "---|" * 5]
    for each in survivors:
        inst = each.mutant.site
        why = each.limit or each.verdict.message or "not explained"
        lines.append(
            f"| {each.mutant.name} | {inst.line} | `{inst.opcode}` | {each.mutant.what} | {why} |"
        )
    return "\n".join(lines)


def _not_drawn(survivors: list[Outcome]) -> str:
    drawn = {(each.mutant.kernel, each.mutant.site.line) for each in survivors}
    lines = ["| kernel | operators | PTX lines | why it is not seen |", "|" + "---|" * 4]
    for each in all_arguments():
        if each.limit and not any((each.kernel, line) in drawn for line in each.lines):
            where = ", ".join(map(str, sorted(each.lines)))
            what = ", ".join(sorted(each.operators))
            lines.append(f"| {each.kernel} | {what} | {where} | {each.reason} |")
    return "\n".join(lines)


def _reasons(equivalent: list[Outcome]) -> str:
    groups: dict[tuple[bool, str], list[Outcome]] = defaultdict(list)
    for each in equivalent:
        groups[each.by_hand, each.equivalent].append(each)
    lines = []
    for (by_hand, reason), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        names = ", ".join(f"{each.mutant.name} (line {each.mutant.site.line})" for each in members)
        lines.append(f"- {'By hand: ' if by_hand else ''}{reason} ({len(members)}): {names}")
    return "\n".join(lines)
