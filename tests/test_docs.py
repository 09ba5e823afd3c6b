"""The documentation names what there is, and only that."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIABLE = re.compile(r"\bFA4GEN_[A-Z][A-Z_]*[A-Z]\b")


def variables(*paths: Path) -> set[str]:
    return {name for path in paths for name in VARIABLE.findall(path.read_text())}


def test_every_environment_variable_is_documented_and_real() -> None:
    code = variables(*(ROOT / "fa4gen").rglob("*.py"))
    documented = variables(ROOT / "docs" / "environment.md")
    assert code == documented


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []
