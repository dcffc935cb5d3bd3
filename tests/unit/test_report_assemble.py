"""The report of a job: equal for equal work, complete, and with all warnings once."""

from __future__ import annotations

from outboard.report.assemble import StageReports, assemble, document
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    job_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)


def _report(seconds: float, device: str) -> job_service_pb2.JobReport:
    engine = audio_pb2.EngineInfo(name="spectral", version=1, device=device)
    run = audio_pb2.RunInfo(seconds=seconds)
    warning = audio_pb2.Warning(code="SHORT_INPUT", message="short")
    restoration = restorer_service_pb2.RestorationReport(engines=[engine], run=run, warnings=[warning])
    return assemble(
        StageReports(
            before=analysis_pb2.Analysis(shimmer_index=0.5, integrated_lufs=-12.0),
            after=analysis_pb2.Analysis(shimmer_index=0.25, width=0.5),
            separation=separator_service_pb2.SeparationReport(engine=engine, run=run, warnings=[warning, warning]),
            restorations={"vocals": restoration, "drums": restoration},
        )
    )


def test_documents_of_equal_work_differ_in_run_only() -> None:
    """Times and devices stand under `run`: without it the documents of two runs are equal."""
    one = document(_report(1.0, "cpu"), {"job": "jobs/a"})
    two = document(_report(2.0, "cuda:0"), {"job": "jobs/b"})
    assert one["run"]["stages"]["separation"] == {"seconds": 1.0, "device": "cpu"}
    assert two["run"]["stages"]["restorations"]["vocals"] == {"seconds": 2.0, "device": "cuda:0"}
    assert one.pop("run") != two.pop("run")
    assert one == two


def test_a_mix_is_told_with_its_zeros() -> None:
    """Faders at 0 dB and limits of 0 stand in the document; what is empty or unset does not, and the run is moved."""
    mix = mixer_service_pb2.MixReport(run=audio_pb2.RunInfo(seconds=2.0))
    mix.strips.add(name="voice")
    mix.rails.add(name="side_mid_ratio", value=-9.0, unit="dB", held=True)
    told = document(assemble(StageReports(mix=mix)), {})
    assert told["mix"]["strips"] == [{"name": "voice", "gain_db": 0.0, "role": "ROLE_UNSPECIFIED"}]
    assert (told["mix"]["rails"][0]["limit"], told["mix"]["as_given"]) == (0.0, False)
    assert not {"run", "notes", "plugins"} & set(told["mix"])
    assert told["run"]["stages"]["mix"] == {"seconds": 2.0}


def test_comparisons_hold_what_either_side_has() -> None:
    """A measure of either side is compared; loudness, which gain changes, is not."""
    comparisons = {entry.metric: entry for entry in _report(1.0, "cpu").comparisons}
    assert set(comparisons) == {"shimmer_index", "width"}
    assert (comparisons["shimmer_index"].before, comparisons["shimmer_index"].after) == (0.5, 0.25)
    assert not comparisons["width"].HasField("before")


def test_warnings_come_once_and_name_their_stem() -> None:
    """Equal warnings are told once; those of a stem's restoration carry the stem's name."""
    warnings = [(warning.code, warning.stem) for warning in _report(1.0, "cpu").warnings]
    assert warnings == [("SHORT_INPUT", ""), ("SHORT_INPUT", "drums"), ("SHORT_INPUT", "vocals")]
