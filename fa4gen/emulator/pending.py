"""Stand-ins for register values that are not there.

A register holds a NumPy array of 32 lanes. Where it holds one of these instead, any arithmetic on
it raises, so an instruction pays nothing for the check.
"""

from __future__ import annotations

from typing import Any, NoReturn


class AbsentValueError(Exception):
    """A register was used whose value is not there."""

    def __init__(self, value: Absent) -> None:
        self.value = value
        super().__init__(str(value))


class Absent:
    """Base of the stand-ins: using one in place of an array raises :class:`AbsentValueError`."""

    __slots__ = ()
    __array_ufunc__ = None

    def _raise(self, *_: Any, **__: Any) -> NoReturn:
        raise AbsentValueError(self)

    __array__ = __getitem__ = __len__ = __iter__ = __bool__ = __index__ = __invert__ = _raise
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __and__ = __rand__ = _raise
    __or__ = __ror__ = __xor__ = __rxor__ = __lshift__ = __rlshift__ = __rshift__ = _raise
    __rrshift__ = __floordiv__ = __mod__ = __neg__ = __lt__ = __le__ = __gt__ = __ge__ = _raise
    __eq__ = __ne__ = _raise
    __hash__ = object.__hash__
    view = astype = copy = any = all = reshape = item = ravel = tobytes = take = _raise

    @property
    def dtype(self) -> Any:
        """Asked for by code that converts widths."""
        raise AbsentValueError(self)


class Unset(Absent):
    """A register nothing has written."""

    __slots__ = ()

    def __str__(self) -> str:
        return "a register that nothing has written"


UNSET = Unset()


class InFlight(Absent):
    """A register that an asynchronous operation will write.

    Attributes:
        owner: The operation. Its ``deliver(warp, value)`` gives the register's value at the first
            use (``tcgen05.ld``), or raises (``wgmma`` before its ``wait_group``).
        part: Which of the operation's results the register gets.
    """

    __slots__ = ("owner", "part")

    def __init__(self, owner: Any, part: int) -> None:
        self.owner, self.part = owner, part

    def __str__(self) -> str:
        return f"a register that {self.owner} has not delivered yet"
