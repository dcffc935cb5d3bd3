"""Sound profiles by name, resolved to numbers when a job is created."""

from __future__ import annotations

from outboard import presets
from outboard.errors import InvalidInput
from outboard.v1 import mixer_service_pb2

_DEFAULT = "balanced"


def resolve_preset(name: str) -> mixer_service_pb2.Preset:
    """The numbers of a profile that comes with Outboard; the default one where the name is empty.

    Raises:
        InvalidInput: PRESET_UNKNOWN. Paths are no names: a client must not make the server read its files.
    """
    known = presets.names()
    if name and name not in known:
        message = f"there is no preset {name[:100]!r}{presets.nearest(name[:100], known)}: there are {', '.join(known)}"
        raise InvalidInput(message, reason="PRESET_UNKNOWN", field="job.preset")
    preset = presets.load(name or _DEFAULT)
    return mixer_service_pb2.Preset(name=preset.name, values=preset.values)
