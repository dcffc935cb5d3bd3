"""Every song against every reference, whole: as near as matchering or nearer, with the true peak held."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.reference import PARTS, distance, heard, read, rendered, wave
from outboard.audio.true_peak import measure_true_peak

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]


def test_no_pair_is_further_from_its_reference_than_by_matchering(test_data: Path, tmp_path: Path) -> None:
    """At intensity 100: no pair's distance is more than 1.1 times matchering's, the median is at most its, and no
    delivered file reads over -0.95 dBTP on any meter.
    """
    references = [wave(path, tmp_path, None)[0] for path in sorted((test_data / "references").iterdir())]
    sums: list[tuple[float, float]] = []
    for path in sorted((test_data / "songs").iterdir()):
        song, stereo = wave(path, tmp_path, None)
        for reference in references:
            goal = heard(*read(reference))
            ours, theirs = (
                rendered(engine, song, reference, tmp_path / f"{engine}.wav") for engine in ("ours", "theirs")
            )
            near, far = (distance(heard(*read(run.path)), goal, stereo=stereo) for run in (ours, theirs))
            told = ", ".join(f"{part} {near[part]:.2f} (theirs {far[part]:.2f})" for part in PARTS)
            assert near["sum"] <= 1.1 * far["sum"], f"{song.stem} after {reference.stem}: {told} dB"
            meter = measure_true_peak(read(ours.path)[0])
            peaks = [value for value in (meter.soxr_dbtp, meter.kaiser_dbtp, meter.annex2_dbtp) if value is not None]
            assert max(peaks) <= -0.95, f"{song.stem} after {reference.stem}: {max(peaks):.3f} dBTP"
            sums.append((near["sum"], far["sum"]))
    ours_median, theirs_median = np.median(np.array(sums), axis=0)
    assert ours_median <= theirs_median, f"{ours_median:.2f} dB, matchering {theirs_median:.2f} dB"
