"""Problems as the short words that fa4gen's tables print: ``b4 s4096 h32/8 d128 bf16 causal``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from fa4gen.core.errors import ProblemError
from fa4gen.core.problem import AttentionProblem

WORDS = (
    "b4, s4096 (or s1x8192), h32 (or h32/8), d128 (or d192,128), bf16 | fp16 | e4m3, dense | causal"
)
"""The words, for messages and help."""

_FORMS: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"b(\d+)"), ("batch",)),
    (re.compile(r"s(\d+)(?:x(\d+))?"), ("seqlen_q", "seqlen_k")),
    (re.compile(r"h(\d+)(?:/(\d+))?"), ("num_heads_q", "num_heads_kv")),
    (re.compile(r"d(\d+)(?:,(\d+))?"), ("head_dim", "head_dim_v")),
    (re.compile(r"(bf16|fp16|e4m3)"), ("dtype",)),
    (re.compile(r"(dense|causal)"), ("causal",)),
)


def parse_problem(words: Iterable[str]) -> AttentionProblem:
    """The problem these words name, in any order; the inverse of ``str(problem)``.

    ``s``, ``h`` and ``d`` are needed; batch is 1, the type bf16 and the mask dense where they are
    not given.

    Raises:
        ProblemError: a word that is not known, given twice or missing, or sizes that make no sense.
    """
    values: dict[str, int | str | bool] = {"batch": 1}
    seen: dict[str, str] = {}
    for word in " ".join(words).split():
        for name, text in _fields(word).items():
            if name in seen:
                raise ProblemError(
                    f"problem: got {seen[name]!r} and {word!r}, allowed: one of them"
                )
            seen[name] = word
            if name == "causal":
                values[name] = text == "causal"
            else:
                values[name] = text if name == "dtype" else int(text)
    for name, example in (("seqlen_q", "s4096"), ("num_heads_q", "h32/8"), ("head_dim", "d128")):
        if name not in values:
            raise ProblemError(
                f"problem: missing {name}, such as {example}; a problem is written like "
                "'b4 s4096 h32/8 d128 bf16 causal'"
            )
    return AttentionProblem.from_dict(values).simplified


def _fields(word: str) -> dict[str, str]:
    """The fields one word gives.

    Raises:
        ProblemError: no form matches the whole word.
    """
    for form, names in _FORMS:
        if match := form.fullmatch(word.lower()):
            return {n: t for n, t in zip(names, match.groups(), strict=True) if t is not None}
    raise ProblemError(f"problem: got {word!r}, allowed words: {WORDS}")
