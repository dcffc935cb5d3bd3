"""How a job is separated: as its request says, where that is silent as its sound profile says, else as is best."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from outboard.audio.stems import DEFAULT_STEM_COUNT
from outboard.errors import InvalidInput
from outboard.presets.separation import SeparationChoice, count_fault
from outboard.rpc.convert import from_message
from outboard.v1 import audio_pb2, job_service_pb2, mixer_service_pb2, separator_service_pb2
from services.orchestrator.engines import EngineCatalogue

Settings = separator_service_pb2.SeparationSettings
_NEVER_INSTALLED = ("MODEL_WEIGHTS_MISSING", "ENGINE_UNAVAILABLE")


def separation_of(job: job_service_pb2.Job) -> Settings:
    """Everything that somebody said of a job's separation; the request before the profile."""
    settings = Settings()
    settings.CopyFrom(job.resolved_preset.separation)
    settings.MergeFrom(job.separation)
    return settings


def stem_count_of(job: job_service_pb2.Job) -> int:
    """Into how many stems a job separates."""
    return separation_of(job).stem_count or DEFAULT_STEM_COUNT


def sound_numbers(preset: mixer_service_pb2.Preset) -> mixer_service_pb2.Preset:
    """What a stage is given of a profile. How to separate is no concern of console and master, and must not make
    another result of theirs.
    """
    numbers = mixer_service_pb2.Preset()
    numbers.CopyFrom(preset)
    numbers.ClearField("separation")
    return numbers


async def separation_engine(catalogue: EngineCatalogue, job: job_service_pb2.Job) -> audio_pb2.EngineInfo:
    """The engine that will separate a job.

    Raises:
        InvalidInput: ENGINE_UNKNOWN; INVALID_ARGUMENT: it does not separate into so many stems. The violation's field
            is that of whoever chose it: the request or the profile.
        FailedPrecondition: ENGINE_UNAVAILABLE, MODEL_WEIGHTS_MISSING and its kin.
    """
    settings = separation_of(job)
    # Before the engine is looked at: no weights would mend it.
    for engine in await catalogue.all():
        if engine.name == settings.engine and (
            wrong := count_fault(engine.name, stem_count_of(job), engine.stem_counts)
        ):
            raise InvalidInput(wrong, field=_field(job, "stem_count" if settings.stem_count else "engine"))
    return await catalogue.resolve(settings.engine, _field(job, "engine"), stem_count_of(job))


async def stand_in_warnings(
    catalogue: EngineCatalogue, job: job_service_pb2.Job, engine: audio_pb2.EngineInfo
) -> tuple[tuple[str, str, str], ...]:
    """A warning (code, message, stem) for each better engine that should have run, had its weights not been damaged or
    its model server away. One that was never installed here is no news.
    """
    if separation_of(job).engine:
        return ()
    better = itertools.takewhile(lambda each: each.name != engine.name, await catalogue.all())
    return tuple(
        ("ENGINE_STAND_IN", f"{engine.name} separated, as {each.name} cannot run now: {each.unavailable_reason}", "")
        for each in better
        if not each.available
        and stem_count_of(job) in each.stem_counts
        and each.unavailable_error not in _NEVER_INSTALLED
    )


def used_settings(
    job: job_service_pb2.Job, report: separator_service_pb2.SeparationReport
) -> Iterator[job_service_pb2.UsedSetting]:
    """Engine and number of stems, and what else somebody chose, each with who chose it."""
    said = from_message(separation_of(job), SeparationChoice).said
    used = {"engine": report.engine.name, "stem_count": len(report.stems)}
    for name, value in {**said, **used}.items():
        source = _source(job, name)
        by_preset = source == job_service_pb2.SETTING_SOURCE_PRESET
        preset = job.resolved_preset.name if by_preset else ""
        text = f"{value:g}" if isinstance(value, float) else str(value)
        yield job_service_pb2.UsedSetting(name=name, value=text, source=source, preset=preset)


def _source(job: job_service_pb2.Job, name: str) -> job_service_pb2.SettingSource.ValueType:
    if _says(job.separation, name):
        return job_service_pb2.SETTING_SOURCE_REQUEST
    if _says(job.resolved_preset.separation, name):
        return job_service_pb2.SETTING_SOURCE_PRESET
    return job_service_pb2.SETTING_SOURCE_DEFAULT


def _field(job: job_service_pb2.Job, name: str) -> str:
    """The field of the request that chose a setting."""
    if not _says(job.separation, name) and _says(job.custom_preset.separation, name):
        return f"job.custom_preset.separation.{name}"
    return f"job.separation.{name}"


def _says(settings: Settings, name: str) -> bool:
    return any(field.name == name for field, _ in settings.ListFields())
