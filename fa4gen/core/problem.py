"""What is asked: one attention problem, and the part of it a kernel is compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Self

from fa4gen.core.canonical import identity
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import ProblemError


@dataclass(frozen=True, slots=True, order=True)
class KernelSignature:
    """The part of a problem that is compiled into a kernel; all else is a run-time argument."""

    dtype: DType
    head_dim: int
    """Inner dimension of Q and K, elements, not padded."""
    head_dim_v: int
    """Inner dimension of V and O, elements, not padded."""
    causal: bool
    qhead_per_kvhead: int
    """Size of a GQA group: ``num_heads_q // num_heads_kv``."""

    @property
    def head_dim_padded(self) -> int:
        """Columns of the Q and K tiles: ``head_dim`` rounded up to the type's granule."""
        return _round_up(self.head_dim, self.dtype.head_dim_granule)

    @property
    def head_dim_v_padded(self) -> int:
        """Columns of the V and O tiles."""
        return _round_up(self.head_dim_v, self.dtype.head_dim_granule)

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name."""
        return {**asdict(self), "dtype": self.dtype.value}


def _round_up(size: int, granule: int) -> int:
    return -(-size // granule) * granule


@dataclass(frozen=True)
class AttentionProblem:
    """One forward attention problem: ``O = softmax(scale * Q K^T + mask) V``.

    Q is ``(batch, seqlen_q, num_heads_q, head_dim)``, K ``(batch, seqlen_k, num_heads_kv,
    head_dim)``, V ``(batch, seqlen_k, num_heads_kv, head_dim_v)``, O like Q with ``head_dim_v``.
    The causal mask is aligned bottom-right: row ``i`` sees keys ``j <= i + seqlen_k - seqlen_q``.

    Raises:
        ProblemError: a size below 1, heads that do not divide, an unknown field.
    """

    batch: int
    seqlen_q: int
    seqlen_k: int
    num_heads_q: int
    num_heads_kv: int
    head_dim: int
    head_dim_v: int
    dtype: DType
    causal: bool

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value < 1):
                raise ProblemError(f"{field.name}: got {value!r}, allowed: an integer of 1 or more")
        if type(self.causal) is not bool:
            raise ProblemError(f"causal: got {self.causal!r}, allowed: true or false")
        if not isinstance(self.dtype, DType):
            raise ProblemError(
                f"dtype: got {self.dtype!r}, allowed: {', '.join(DType)} (as a DType)"
            )
        if self.num_heads_q % self.num_heads_kv:
            raise ProblemError(
                f"num_heads_q: got {self.num_heads_q}, allowed: a multiple of num_heads_kv = "
                f"{self.num_heads_kv} ({self.num_heads_q} % {self.num_heads_kv} = "
                f"{self.num_heads_q % self.num_heads_kv}); repeat or drop heads"
            )

    @property
    def qhead_per_kvhead(self) -> int:
        """Query heads that share one K/V head."""
        return self.num_heads_q // self.num_heads_kv

    @property
    def signature(self) -> KernelSignature:
        """What a kernel for this problem is compiled for."""
        return KernelSignature(
            self.dtype, self.head_dim, self.head_dim_v, self.causal, self.qhead_per_kvhead
        )

    @cached_property
    def problem_id(self) -> str:
        """Identity of the problem: hash of its canonical JSON."""
        return identity(self.to_dict())

    @property
    def simplified(self) -> AttentionProblem:
        """The same problem, without a causal mask that hides no key: that of a single query.

        What callers ask is looked up, and workloads are tuned, in this form.
        """
        return replace(self, causal=False) if self.causal and self.seqlen_q == 1 else self

    @property
    def visible_pairs(self) -> int:
        """Number of (query, key) pairs of one head that the mask lets through."""
        m, n = self.seqlen_q, self.seqlen_k
        if not self.causal:
            return m * n
        # Row i sees clamp(i + 1 + n - m, 0, n) keys; the first max(0, m - n) rows see none.
        first_visible = max(1, n - m + 1)
        rows = n - first_visible + 1
        return rows * (first_visible + n) // 2

    @property
    def flops(self) -> int:
        """Floating-point operations the mask asks for: 2 per multiply-add of QK and of PV.

        For causal problems with ``seqlen_q == seqlen_k`` this is the exact count, a little above
        the half of the dense count that benchmarks of this field usually quote.
        """
        pairs = self.batch * self.num_heads_q * self.visible_pairs
        return 2 * pairs * (self.head_dim + self.head_dim_v)

    @property
    def quoted_flops(self) -> int:
        """The field's convention for TFLOP/s: dense count, halved when causal."""
        dense = (
            2
            * self.batch
            * self.num_heads_q
            * self.seqlen_q
            * self.seqlen_k
            * (self.head_dim + self.head_dim_v)
        )
        return dense // 2 if self.causal else dense

    def tflops(self, time_us: float) -> float:
        """TFLOP/s by :attr:`quoted_flops` for a kernel time in microseconds."""
        return self.quoted_flops / time_us / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Plain values by field name, for TOML, JSON and the database."""
        return {**asdict(self), "dtype": self.dtype.value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The problem with these fields; ``num_heads_kv`` and ``head_dim_v`` may be left out.

        They default to ``num_heads_q`` and ``head_dim``; ``seqlen_k`` to ``seqlen_q``; ``dtype``
        to bf16; ``causal`` to false.

        Raises:
            ProblemError: a missing or unknown field, or an illegal value.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ProblemError(
                f"problem: got unknown field {', '.join(unknown)}, allowed: "
                f"{', '.join(sorted(known))}"
            )
        given = dict(values)
        for name, source in (
            ("seqlen_k", "seqlen_q"),
            ("num_heads_kv", "num_heads_q"),
            ("head_dim_v", "head_dim"),
        ):
            if name not in given and source in given:
                given[name] = given[source]
        given.setdefault("causal", False)
        dtype = given.get("dtype", "bf16")
        try:
            given["dtype"] = DType(dtype)
        except ValueError:
            raise ProblemError(f"dtype: got {dtype!r}, allowed: {', '.join(DType)}") from None
        if missing := sorted(known - set(given)):
            raise ProblemError(f"problem: missing {', '.join(missing)}; give each as an integer")
        return cls(**given)

    def __str__(self) -> str:
        heads = f"{self.num_heads_q}"
        if self.num_heads_kv != self.num_heads_q:
            heads += f"/{self.num_heads_kv}"
        dims = f"{self.head_dim}"
        if self.head_dim_v != self.head_dim:
            dims += f",{self.head_dim_v}"
        seqlens = f"{self.seqlen_q}"
        if self.seqlen_k != self.seqlen_q:
            seqlens += f"x{self.seqlen_k}"
        mask = "causal" if self.causal else "dense"
        return f"b{self.batch} s{seqlens} h{heads} d{dims} {self.dtype.value} {mask}"
