"""A handful of the matrix of pathologies; all of it stands under acceptance and in ``benchmarks.restoration``."""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.restoration import judged
from benchmarks.restoration_cases import Stem, cases, stems

FAULTS = ("shimmer", "holes", "mp3 96 kbit/s", "low-pass 8 kHz", "low-pass 15 kHz", "clipped 6 dB")


@cache
def found() -> dict[str, Stem]:
    return {stem.name: stem for stem in stems(None, 3.0, (22,))}


@pytest.mark.parametrize("name", ["demo 22 drums", "demo 22 vocals"])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_automatic_chain_mends(name: str, fault: str) -> None:
    """The stem comes nearer to the clean one in log-spectral distance, and the index that tells of the fault falls."""
    (case,) = cases(found()[name], faults=(fault,))
    after_db, before, after = judged(case, None)
    assert after_db < case.damage_db, f"{fault}, {name}: {case.damage_db:.2f} -> {after_db:.2f} dB"
    assert after < before, f"{fault}, {name}: index {before:.4g} -> {after:.4g}"
