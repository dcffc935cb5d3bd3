"""Sound profiles, by name or of one's own, resolved to numbers when a job is created."""

from __future__ import annotations

from outboard import presets
from outboard.audio.plugins.facts import PluginChoice
from outboard.errors import InvalidInput, Violation
from outboard.presets.platforms import platform
from outboard.presets.separation import SeparationChoice
from outboard.rpc.convert import from_message
from outboard.rpc.presets import preset_message
from outboard.v1 import job_service_pb2, master_service_pb2, mixer_service_pb2
from services.orchestrator.progress import Stage

_LONGEST_NAME = 100
_LONGEST_KEY = 200


def resolve_preset(name: str, custom: mixer_service_pb2.Preset) -> mixer_service_pb2.Preset:
    """The numbers of a profile that comes with Outboard (none: the base), with those of one's own over them.

    Raises:
        InvalidInput: PRESET_UNKNOWN: no profile of that name; the nearest is suggested. Paths are no names: a client
            must not make the server read its files. PRESET_INVALID: a key that there is not (the nearest is suggested)
            or a number out of range (the range is told), with the key in the violation's field.
    """
    known = presets.names()
    if name and name not in known:
        short = name[:_LONGEST_NAME]
        message = f"there is no preset {short!r}{presets.nearest(short, known)}: there are {', '.join(known)}"
        raise InvalidInput(message, reason="PRESET_UNKNOWN", field="job.preset")
    _check_size(custom)
    try:
        plugins = {
            slot: from_message(custom.plugins[slot], PluginChoice, f"plugins.{slot}.") for slot in custom.plugins
        }
        separation = from_message(custom.separation, SeparationChoice, "separation.")
        preset = presets.with_values(custom.name, custom.values, name or presets.BASE_NAME, plugins, separation)
    except InvalidInput as error:
        error.violations = tuple(Violation(_path(entry.field), entry.description) for entry in error.violations)
        raise
    return preset_message(preset)


def _path(key: str) -> str:
    is_block = key.startswith(("plugins.", "separation.")) or key == "plugins"
    return f"job.custom_preset.{key}" if is_block else f"job.custom_preset.values[{key}]"


def check_preset_is_read(job: job_service_pb2.Job) -> None:
    """Refuses a profile where the job goes through no stage that it says anything of.

    Args:
        job: with its resolved profile.

    Raises:
        InvalidInput: OPTIONS_CONFLICT.
    """
    fields = ["preset"] * bool(job.preset) + ["custom_preset"] * job.HasField("custom_preset")
    is_read = Stage.STAGE_MIX in job.stages or Stage.STAGE_MASTER in job.stages
    if Stage.STAGE_SEPARATE in job.stages:
        is_read |= job.resolved_preset.HasField("separation")
    if fields and not is_read:
        message = f"the preset {job.resolved_preset.name!r} says nothing of a stage that the job goes through"
        raise InvalidInput(message, reason="OPTIONS_CONFLICT", field=f"job.{fields[0]}")


def resolve_platform(settings: master_service_pb2.MasterSettings) -> None:
    """Puts a platform profile's numbers where the request has none; its name stays, for reports.

    Raises:
        InvalidInput: PRESET_UNKNOWN: no profile of that name; OPTIONS_CONFLICT: an intent that has another target.
    """
    if not settings.profile:
        return
    try:
        profile = platform(settings.profile)
    except InvalidInput as error:
        raise InvalidInput(error.message, reason=error.reason, field="job.mastering.profile") from None
    if settings.intent == master_service_pb2.MASTER_INTENT_LOUD:
        message = f"the loud intent and {profile.title} have different targets: choose one of them"
        raise InvalidInput(message, reason="OPTIONS_CONFLICT", field="job.mastering.intent")
    if not settings.HasField("target_lufs"):
        settings.target_lufs = profile.target_lufs
    if not settings.HasField("ceiling_dbtp"):
        settings.ceiling_dbtp = profile.ceiling_dbtp
    if not settings.deliverables:
        settings.deliverables.add(
            name="master",
            container=f"CONTAINER_{profile.container.upper()}",
            sample_rate_hertz=profile.sample_rate_hertz,
            bit_depth=f"BIT_DEPTH_{profile.bit_depth.upper()}",
        )


def _check_size(custom: mixer_service_pb2.Preset) -> None:
    """Refuses what no preset file looks like, before anything is compared with it."""
    if len(custom.name) > _LONGEST_NAME or not custom.name.isprintable():
        message = f"a preset's name has at most {_LONGEST_NAME} printable characters"
        raise InvalidInput(message, reason="PRESET_INVALID", field="job.custom_preset.name")
    if len(custom.values) > 2 * len(presets.KEYS):
        message = f"a preset sets at most {len(presets.KEYS)} numbers, not {len(custom.values)}"
        raise InvalidInput(message, reason="PRESET_INVALID", field="job.custom_preset.values")
    if any(len(key) > _LONGEST_KEY for key in (*custom.values, *custom.plugins)):
        message = f"a preset's key has at most {_LONGEST_KEY} characters"
        raise InvalidInput(message, reason="PRESET_INVALID", field="job.custom_preset.values")
