"""docs/operations.md tells every setting there is, with its real default, and no other."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from outboard.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `(OUTBOARD_[A-Z_]+)` \| `?([^|`]*)`? \| (.+) \|$", re.MULTILINE)
# Read elsewhere: by the models' registry, and by the command line for --server.
OTHERS = {"OUTBOARD_MODELS", "OUTBOARD_MODELS_MIRROR", "OUTBOARD_SERVER"}


def _fields() -> dict[str, FieldInfo]:
    """Every field of every settings class by its variable."""
    found = {}
    for part in dataclasses.fields(Settings):
        kind: Any = part.default_factory
        for name, field in kind.model_fields.items():
            found[f"{kind.model_config['env_prefix']}{name}".upper()] = field
    return found


def test_table_holds_every_setting() -> None:
    """Each variable has one row, and each row is a variable that is read."""
    rows = [row[0] for row in ROW.findall((ROOT / "docs/operations.md").read_text())]
    assert len(rows) == len(set(rows)), f"twice: {sorted(row for row in rows if rows.count(row) > 1)}"
    wanted = _fields().keys() | OTHERS
    assert set(rows) == wanted, f"missing {sorted(wanted - set(rows))}, too many {sorted(set(rows) - wanted)}"


def test_table_tells_the_defaults() -> None:
    """Numbers, switches and addresses stand in the table as they are in the code."""
    told = {name: default for name, default, _ in ROW.findall((ROOT / "docs/operations.md").read_text())}
    for name, field in _fields().items():
        if isinstance(field.default, bool):
            assert told[name] == str(field.default).lower(), name
        elif isinstance(field.default, int | float):
            number = float(told[name].removesuffix(" GiB")) * (1024**3 if told[name].endswith("GiB") else 1)
            assert number == field.default, name
        elif isinstance(field.default, str):
            assert told[name] == (field.default or "empty"), name
