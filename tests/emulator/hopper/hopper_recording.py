"""Recordings: what a GPU gave, small enough to be committed.

A file for each family, a line for each kernel. An output is kept whole if it is small, if it is a
fact that nothing else knows, or if the emulator gave something else when it was recorded; of all
others there is a digest, and some elements to see what went wrong by.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hopper_kernel import Agreement, Array, Arrays, Kernel, Output

from fa4gen.numerics.approx import Bound

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "hopper"
SMALL, LARGE = 400, 12_000
"""Bytes, compressed, up to which an output is kept anyway, and if there is a reason."""
SAMPLES = 12
Entry = dict[str, Any]


def entry(kernel: Kernel, outputs: Arrays, emulated: Arrays | None) -> Entry:
    """The recording of one kernel.

    Args:
        emulated: What the emulator gave; ``None`` if it did not run.
    """
    made: Entry = {"fingerprint": kernel.fingerprint(), "outputs": {}}
    for name, value in outputs.items():
        output = kernel.outputs[name]
        same = emulated is not None and not differences(output, value, emulated[name])
        made["outputs"][name] = _packed(output, value, same)
    return made


def failure(kernel: Kernel, error: str) -> Entry:
    """The recording of a kernel that a GPU could not run."""
    return {"fingerprint": kernel.fingerprint(), "error": error}


def _packed(output: Output, value: Array, same: bool) -> Entry:
    raw = np.ascontiguousarray(value)
    packed = zlib.compress(raw.tobytes(), 9)
    found: Entry = {"sha256": digest(raw)}
    wanted = not same or output.agreement in (Agreement.NEAR, Agreement.FACT)
    if len(packed) <= (LARGE if wanted else SMALL):
        found["data"] = base64.b64encode(packed).decode()
    else:
        flat = raw.reshape(-1)
        at = sample_places(flat.size)
        found["sample"] = [f"{int(v):x}" for v in _bits(flat)[at].tolist()]
    return found


def digest(value: Array) -> str:
    """Of the bytes of an array."""
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:24]


def sample_places(count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which elements are kept of an output that is not."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).astype(np.int64))


def unpacked(kernel: Kernel, recorded: Entry, name: str) -> Array | None:
    """A recorded output, if it was kept whole."""
    data = recorded["outputs"][name].get("data")
    if data is None:
        return None
    output = kernel.outputs[name]
    raw = zlib.decompress(base64.b64decode(data))
    return np.frombuffer(raw, output.dtype).reshape(output.shape)


def check(kernel: Kernel, recorded: Entry, outputs: Arrays) -> list[str]:
    """What of ``outputs`` disagrees with a recording; empty if nothing does."""
    found = []
    for name, value in outputs.items():
        output, kept = kernel.outputs[name], recorded["outputs"][name]
        if output.agreement is Agreement.FACT or kept["sha256"] == digest(value):
            continue
        whole = unpacked(kernel, recorded, name)
        if whole is not None:
            found += [f"{name}: {each}" for each in differences(output, whole, value)]
        else:
            found += [f"{name}: {each}" for each in _sampled(kept["sample"], value)]
    return found


def _sampled(sample: list[str], value: Array) -> list[str]:
    flat = _bits(value.reshape(-1))
    at = sample_places(flat.size).tolist()
    wrong = [
        f"element {place}: the GPU has {kept}, the emulator {int(flat[place]):x}"
        for place, kept in zip(at, sample, strict=True)
        if int(kept, 16) != int(flat[place])
    ]
    return ["the digest differs", *wrong[:4]]


def differences(output: Output, wanted: Array, got: Array) -> list[str]:
    """Where two arrays do not agree as the output asks, a few of the places in words."""
    if output.agreement is Agreement.FACT:
        return []
    one, other = _bits(wanted), _bits(got)
    bad = one != other
    if output.agreement is Agreement.NEAR:
        bad &= ~_near(wanted, got, output.bounds)
    places = np.argwhere(bad)
    if not len(places):
        return []
    shown = [
        f"[{', '.join(map(str, at))}]: the GPU has {int(one[tuple(at)]):x}, "
        f"the emulator {int(other[tuple(at)]):x}"
        for at in places[:6].tolist()
    ]
    return [f"{len(places)} of {one.size} elements differ", *shown]


def _near(wanted: Array, got: Array, bounds: tuple[Bound, ...]) -> Array:
    """Where f32 patterns are as close as the bound of their row says; a NaN is canonical."""
    measured, model = (v.view(np.float32).astype(np.float64) for v in (wanted, got))
    close = [bound.holds(*row) for bound, *row in zip(bounds, model, measured, strict=True)]
    return np.stack(close) & ~(np.isnan(model) & (wanted != got))


def _bits(value: Array) -> Array:
    return value.view(f"uint{8 * value.dtype.itemsize}")


def write(folder: Path, family: str, head: Mapping[str, Any], entries: Mapping[str, Any]) -> int:
    """Write a family's file.

    Returns:
        Its size in bytes.
    """
    lines = [f'"head": {json.dumps(head, sort_keys=True)}']
    lines += [f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{family}.json").write_text(text)
    return len(text)


def read(folder: Path = FOLDER) -> dict[str, Entry]:
    """Every recording in a folder by the name of its kernel, heads left out."""
    found: dict[str, Entry] = {}
    for path in sorted(folder.glob("*.json")):
        entries = json.loads(path.read_text())
        found |= {name: value for name, value in entries.items() if name != "head"}
    return found


def heads(folder: Path = FOLDER) -> dict[str, Entry]:
    """What each file says of its origin."""
    return {
        path.stem: json.loads(path.read_text())["head"] for path in sorted(folder.glob("*.json"))
    }
