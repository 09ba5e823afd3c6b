"""Where fa4gen's data folders and the user's own files are."""

from __future__ import annotations

import os
from pathlib import Path

from fa4gen.core.errors import ResourceError

_PACKAGE = Path(__file__).resolve().parent.parent


def data_dir(name: str) -> Path:
    """The folder ``templates``, ``search_spaces``, ``tuning_db`` or ``workloads``.

    Looked for in ``$FA4GEN_HOME``, then in the wheel (``fa4gen/_data``), then beside the package
    in a checkout.

    Raises:
        ResourceError: none of the three has it.
    """
    home = os.environ.get("FA4GEN_HOME")
    places = [Path(home) / name] if home else []
    places += [_PACKAGE / "_data" / name, _PACKAGE.parent / name]
    for place in places:
        if place.is_dir():
            return place
    tried = ", ".join(str(place) for place in places)
    raise ResourceError(
        f"data folder {name!r}: not found in {tried}; reinstall fa4gen or set FA4GEN_HOME"
    )
