"""A sound profile as the wire carries it."""

from __future__ import annotations

from outboard.presets import Preset
from outboard.rpc.convert import to_message
from outboard.v1 import mixer_service_pb2, processor_pb2, separator_service_pb2

_LONGEST_NAME = 100


def preset_message(preset: Preset) -> mixer_service_pb2.Preset:
    """The message of a profile: its name cut to what a job takes, its numbers, its plugins, how it separates."""
    plugins = {slot: to_message(plugin, processor_pb2.Plugin) for slot, plugin in preset.plugins.items()}
    separation = None
    if preset.separation.said:
        separation = to_message(preset.separation, separator_service_pb2.SeparationSettings)
    return mixer_service_pb2.Preset(
        name=preset.name[:_LONGEST_NAME], values=preset.values, plugins=plugins, separation=separation
    )
