"""What a separation was, in sentences."""

from __future__ import annotations

from outboard.v1 import job_service_pb2

_DIGEST_DIGITS = 8
_SOURCES = {
    job_service_pb2.SETTING_SOURCE_REQUEST: "the request",
    job_service_pb2.SETTING_SOURCE_PRESET: "the preset",
}


def separation_sentences(report: job_service_pb2.JobReport) -> list[str]:
    """Engine and stems, how well the stems sum, and who chose what; none for a job that does not separate."""
    if not report.HasField("separation"):
        return []
    separation, engine = report.separation, report.separation.engine
    how = [engine.backend, engine.precision]
    if engine.weights_digest:
        how.append(f"weights {engine.weights_digest[:_DIGEST_DIGITS]}")
    said = f" ({', '.join(filter(None, how))})" if any(how) else ""
    sentences = [
        f"{engine.name} {engine.version}{said} made {len(separation.stems)} stems: {', '.join(separation.stems)}."
    ]
    if separation.HasField("confidence"):
        lacking = f"; what its own stems lack of the song lies at {separation.residual_db:.1f} dB"
        sentences.append(
            f"Confidence {separation.confidence:.2f} of 1{lacking if separation.HasField('residual_db') else ''}."
        )
    chosen = [_choice(setting) for setting in report.separation_settings if setting.source in _SOURCES]
    if chosen:
        sentences.append(f"Chosen: {'; '.join(chosen)}.")
    return sentences


def _choice(setting: job_service_pb2.UsedSetting) -> str:
    by = _SOURCES[setting.source] + (f" {setting.preset!r}" if setting.preset else "")
    return f"{setting.name} {setting.value} by {by}"
