"""What ptxas makes of products and sums that PTX leaves it free to fuse.

``mul.f32`` and an ``add.f32`` or ``sub.f32`` of the product, none of them with a rounding mode, may
become one ``fma``, which rounds once (PTX ISA, "Floating Point Instructions: mul, add, sub"). So
their bits are not the ISA's to say, and the emulator rounds twice. ptxas fuses unless it is told
``--fmad=false``. :func:`contracted` does to the text what ptxas does, so that a kernel can be
emulated as it is run.

The rule: a product is fused if a sum of the same basic block is all that reads it; of two such
products it is the left one. Source: the SASS of FlashAttention-4's forwards for sm_90a has as many
FFMA, FMUL and FADD as that of the text given back here, assembled with ``--fmad=false``; ptxas
12.8 and 13.4.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

_PRODUCT = re.compile(r"\s*mul\.f32\s+(%\w+), (\S+), (\S+);")
_SUM = re.compile(r"\s*(add|sub)\.f32\s+(%\w+), (\S+), (\S+);")
_WORD = re.compile(r"%[\w$]+")
_BLOCK_ENDS = re.compile(r"\s*(?:@!?%\w+\s+)?(?:bra|brx|ret|exit|call)\b|\s*[\w$]+:|\s*[{}]")
_ASSIGNS = re.compile(r"\s*(?:@!?%\w+\s+)?[a-z][\w.:]*\s+(%[\w$]+|\{[^}]*\})")
_NEGATED = "%negated"


@dataclass(frozen=True)
class _Product:
    """A ``mul.f32`` of this block, of factors that nothing has written to since."""

    line: int
    left: str
    right: str


def contracted(ptx: str) -> str:
    """The text with every product fused that ptxas fuses; the same text if there is none."""
    lines = ptx.split("\n")
    mentions = Counter(_WORD.findall(_instructions(ptx)))
    products: dict[str, _Product] = {}
    negated = 0
    for at, line in enumerate(lines):
        if _BLOCK_ENDS.match(line):
            products.clear()
            continue
        added = _SUM.match(line)
        name = next((x for x in added.groups()[2:] if x in products), "") if added else ""
        if added and name:
            product = products.pop(name)
            lines[product.line] = ""
            lines[at] = _fused(added, name, product, f"{_NEGATED}{negated}")
            negated += added[1] == "sub"
        _forget(products, line)
        made = _PRODUCT.match(line)
        # The product itself and its one reader, each of which names it once.
        if made is not None and mentions[made[1]] == 2:
            products[made[1]] = _Product(at, made[2], made[3])
    return _declared("\n".join(lines), negated)


def _fused(added: re.Match[str], name: str, product: _Product, register: str) -> str:
    """The ``fma`` for a sum; a subtraction is of what is first negated into ``register``."""
    operation, result, left, right = added.groups()
    other, factor, before = (right if name == left else left), product.left, ""
    if operation == "sub":
        subtracted = other if name == left else factor
        before = f"\tneg.f32 \t{register}, {subtracted};\n"
        other, factor = (register, factor) if name == left else (other, register)
    return f"{before}\tfma.rn.f32 \t{result}, {factor}, {product.right}, {other};"


def _instructions(ptx: str) -> str:
    """Without comments, and without declarations, which name registers with their number."""
    return re.sub(r"//[^\n]*|^\s*\.reg[^;]*;", "", ptx, flags=re.MULTILINE)


def _forget(products: dict[str, _Product], line: str) -> None:
    """Drop products if ``line`` writes to them or to their factors."""
    written = _ASSIGNS.match(line)
    for register in _WORD.findall(written[1]) if written else ():
        for name, product in list(products.items()):
            if register in (name, product.left, product.right):
                del products[name]


def _declared(ptx: str, negated: int) -> str:
    """With the registers that hold negated operands."""
    if not negated:
        return ptx
    at = ptx.index("\t.reg ")
    return f"{ptx[:at]}\t.reg .b32 \t{_NEGATED}<{negated}>;\n{ptx[at:]}"
