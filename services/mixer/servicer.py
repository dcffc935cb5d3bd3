"""The mixer at the wire: protobuf to arrays and back, nothing else. All stems are spooled, then mixed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.plugins.facts import PluginChoice, PluginFacts
from outboard.audio.plugins.host import PluginHost, host_from
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.reporting import part
from outboard.audio.stems import MAXIMUM_STEMS
from outboard.errors import InvalidInput
from outboard.presets import plugins as presets
from outboard.presets import with_values
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.convert import enum_name, from_message, to_message
from outboard.rpc.stage import RunClock, first_config, receive_streams, rendered, unsent
from outboard.rpc.streaming import Audio, StreamFormat, checked_format
from outboard.settings import Settings
from outboard.v1 import audio_pb2, mixer_service_pb2, mixer_service_pb2_grpc
from services.mixer.buses import BUSES
from services.mixer.check import check_plan, check_plan_plugins
from services.mixer.console import CONSOLE, ENGINES, PASSTHROUGH, MixPlan, MixReport, MixSettings, engine_info
from services.mixer.detect import detect_roles
from services.mixer.hearing import Heard, hear
from services.mixer.inserts import Inserts
from services.mixer.intake import Intake
from services.mixer.listening import Sound, listen
from services.mixer.mix import mix
from services.mixer.plan import LABELS, check_settings, decides, plan
from services.mixer.rails import MOST_ROUNDS

Context = grpc.aio.ServicerContext[Any, Any]
Call = StageCall[mixer_service_pb2.MixRequest, mixer_service_pb2.MixResponse]
Planner = Callable[[Mapping[str, Analysis], Mapping[str, Sound | None], Mapping[str, Heard]], MixPlan]
"""From measurements and sounds of the stems to all numbers of the mix."""

# Share of the work that is measuring the stems.
_ANALYSIS_SHARE = 0.4
_MIX_CHANNELS = 2
# Of a plan that is checked without audio.
DEFAULT_RATE_HERTZ = 48_000


class MixerServicer(mixer_service_pb2_grpc.MixerServiceServicer):
    """``outboard.v1.MixerService``."""

    def __init__(self, settings: Settings) -> None:
        self._longest_seconds = settings.limits.maximum_audio_seconds
        self._directory = settings.spool.directory
        self._bridge = Bridge("mixer", settings.limits)
        self._plugins = host_from(settings.plugins)

    def Mix(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[mixer_service_pb2.MixRequest], context: Context
    ) -> AsyncIterator[mixer_service_pb2.MixResponse]:
        """Mix stems."""
        return self._bridge.run(self._mix, request_iterator, _progress)

    async def PlanMix(  # noqa: N802 - the contract's name
        self, request: mixer_service_pb2.PlanMixRequest, context: Context
    ) -> mixer_service_pb2.PlanMixResponse:
        """Decide all numbers of a mix."""
        analyses = {
            name: from_message(message, Analysis, f"stem_analyses[{name}].")
            for name, message in sorted(request.stem_analyses.items())
        }
        decided = await asyncio.to_thread(self._planned, request.config, analyses)
        return mixer_service_pb2.PlanMixResponse(plan=to_message(decided, mixer_service_pb2.MixPlan))

    async def ListEngines(  # noqa: N802 - the contract's name
        self, request: mixer_service_pb2.MixerServiceListEnginesRequest, context: Context
    ) -> mixer_service_pb2.MixerServiceListEnginesResponse:
        """The engines of this server."""
        engines = [to_message(engine, audio_pb2.EngineInfo) for engine in ENGINES]
        return mixer_service_pb2.MixerServiceListEnginesResponse(engines=engines)

    async def ListPlugins(  # noqa: N802 - the contract's name
        self, request: mixer_service_pb2.ListPluginsRequest, context: Context
    ) -> mixer_service_pb2.ListPluginsResponse:
        """The plugins of this server."""
        if len(request.names) > presets.MOST_PLUGINS:
            message = f"at most {presets.MOST_PLUGINS} plugins at once, not {len(request.names)}"
            raise InvalidInput(message, field="names")
        found = await asyncio.to_thread(self._found, sorted(set(request.names)))
        return mixer_service_pb2.ListPluginsResponse(plugins=map(_plugin_info, found))

    def _found(self, names: Sequence[str]) -> Sequence[PluginFacts]:
        """The plugins of these names, or all; an answer has the names of its question."""
        return [replace(self._plugins.find(name), name=name) for name in names] if names else self._plugins.all()

    def _planned(self, config: mixer_service_pb2.MixConfig, analyses: Mapping[str, Analysis]) -> MixPlan:
        planner, _ = _planner(config, self._plugins)
        if config.HasField("plan"):
            return self._given_plan(config, [stem.name for stem in config.stems], config.format.sample_rate_hertz)
        return planner(analyses, {}, {})

    def _given_plan(
        self, config: mixer_service_pb2.MixConfig, stems: Collection[str], sample_rate_hertz: int
    ) -> MixPlan:
        """The plan in a config, checked; settings that would decide something else contradict it.

        Raises:
            InvalidInput: OPTIONS_CONFLICT, or what `check_plan` and `check_plan_plugins` refuse.
        """
        if config.settings.engine == PASSTHROUGH or config.settings.bypass_all:
            field = "config.settings.engine" if config.settings.engine == PASSTHROUGH else "config.settings.bypass_all"
            message = "a plan is rendered by the console: the plain sum of the stems has none"
            raise InvalidInput(message, reason="OPTIONS_CONFLICT", field=field)
        given = from_message(config.plan, MixPlan, "config.plan.")
        check_plan(given, stems, sample_rate_hertz or DEFAULT_RATE_HERTZ, "config.plan.")
        check_plan_plugins(given, PluginRack(self._plugins), "config.plan.")
        return given

    def _mix(self, call: Call) -> Generator[mixer_service_pb2.MixResponse, None, None]:
        clock = RunClock()
        requests = call.requests()
        config = first_config(requests)
        form = checked_format(config.format, field="config.format", maximum_seconds=self._longest_seconds)
        formats = self._formats(config)
        settings = from_message(config.settings, MixSettings, "config.settings.")
        # What cannot be rendered is refused before the stems are sent.
        planner, inserts = _planner(config, self._plugins)
        given = self._given_plan(config, formats, form.sample_rate_hertz) if config.HasField("plan") else None
        layouts = {name: (stem.sample_rate_hertz, stem.channels) for name, stem in formats.items()}
        with Intake(layouts, form.sample_rate_hertz, self._directory) as intake:
            receive_streams(requests, formats, intake.append, self._longest_seconds)
            stems = intake.finish()
            with call.turn():
                measured = stems if decides(settings) else {name: stem[:, :0] for name, stem in stems.items()}
                decided = given or planner(
                    _analyses(measured, form.sample_rate_hertz, call),
                    {name: listen(stem, form.sample_rate_hertz) for name, stem in _told(measured, call)},
                    {name: hear(stem, form.sample_rate_hertz) for name, stem in _told(measured, call)},
                )
                if config.plan_only and given:
                    report = MixReport(engine_info(CONSOLE), decided, (), (), _frames(stems))
                else:
                    # A plan that is decided here is what the console would render: its corrections are known by then.
                    report = yield from (unsent if config.plan_only else rendered)(
                        mix(
                            stems,
                            form.sample_rate_hertz,
                            decided,
                            part(call.progress, 0.0 if given else _ANALYSIS_SHARE, 1.0),
                            spool_directory=self._directory,
                            plugins=PluginRack(self._plugins),
                            # A plan that was given is rendered as it is; the report tells which rail it misses.
                            corrections=0 if given else MOST_ROUNDS,
                        ),
                        _MIX_CHANNELS,
                        _chunk,
                    )
        report = replace(report, engine=engine_info(settings.engine), warnings=(*report.warnings, *inserts.warnings))
        message = to_message(report, mixer_service_pb2.MixReport)
        message.run.CopyFrom(clock.run_info(report.frames, form.sample_rate_hertz))
        yield mixer_service_pb2.MixResponse(report=message)

    def _formats(self, config: mixer_service_pb2.MixConfig) -> dict[str, StreamFormat]:
        """The layout of each stem by its name."""
        if not 1 <= len(config.stems) <= MAXIMUM_STEMS:
            raise InvalidInput(f"a mix has 1 to {MAXIMUM_STEMS} stems, not {len(config.stems)}", field="config.stems")
        formats: dict[str, StreamFormat] = {}
        for index, stem in enumerate(config.stems):
            field = f"config.stems[{index}]"
            if not stem.name or stem.name in formats:
                raise InvalidInput("each stem needs a name of its own", field=f"{field}.name")
            form = stem.format if stem.HasField("format") else config.format
            formats[stem.name] = checked_format(form, field=f"{field}.format", maximum_seconds=self._longest_seconds)
        return formats


def _analyses(stems: dict[str, Audio], sample_rate_hertz: int, call: Call) -> dict[str, Analysis]:
    share = _ANALYSIS_SHARE / len(stems)
    return {
        name: analyze(stem, sample_rate_hertz, progress=part(call.progress, index * share, (index + 1) * share))
        for index, (name, stem) in enumerate(sorted(stems.items()))
    }


def _told(stems: dict[str, Audio], call: Call) -> Iterator[tuple[str, Audio]]:
    """The stems one by one; at each a cancelled call ends."""
    for name, stem in stems.items():
        call.progress(_ANALYSIS_SHARE)
        yield name, stem


def _planner(config: mixer_service_pb2.MixConfig, host: PluginHost) -> tuple[Planner, Inserts]:
    """What decides the plan, and what gives its slots to plugins; all in the config but a plan is checked here."""
    settings = from_message(config.settings, MixSettings, "config.settings.")
    check_settings(settings)
    roles = {
        stem.name: enum_name(audio_pb2.Role.DESCRIPTOR, stem.role, f"config.stems[{index}].role")
        for index, stem in enumerate(config.stems)
    }
    song = from_message(config.song, Analysis, "config.song.") if config.HasField("song") else None
    plugins = {
        slot: from_message(config.preset.plugins[slot], PluginChoice, f"config.preset.plugins[{slot}].")
        for slot in sorted(config.preset.plugins)
    }
    preset = with_values(config.preset.name, config.preset.values, plugins=plugins)
    inserts = Inserts(preset.plugins, PluginRack(host), LABELS, BUSES, "config.preset.plugins")

    def planned(
        analyses: Mapping[str, Analysis], sounds: Mapping[str, Sound | None], heard: Mapping[str, Heard]
    ) -> MixPlan:
        guesses = detect_roles(sounds, roles, separated=song is not None)
        found = roles | {name: guess.role for name, guess in guesses.items()}
        sure = {name: guess.confidence for name, guess in guesses.items()}
        decided = plan(analyses, found, song, preset, settings, sure, heard)
        return inserts.into(decided, settings.bypass) if decides(settings) else decided

    return planned, inserts


def _frames(stems: Mapping[str, Audio]) -> int:
    return int(next(iter(stems.values())).shape[1])


def _plugin_info(facts: PluginFacts) -> mixer_service_pb2.PluginInfo:
    return mixer_service_pb2.PluginInfo(
        name=facts.name,
        version=facts.version,
        manufacturer=facts.manufacturer,
        digest=facts.digest,
        channels=facts.channels,
        latency_frames=facts.latency_frames,
        reported_latency_frames=facts.reported_latency_frames,
        reason=facts.reason,
        message=facts.message,
        parameters=[
            mixer_service_pb2.PluginParameter(
                name=one.name, low=one.low, high=one.high, choices=one.choices, unit=one.unit, value=str(one.value)
            )
            for one in facts.parameters.values()
        ],
    )


def _chunk(chunk: audio_pb2.AudioChunk) -> mixer_service_pb2.MixResponse:
    return mixer_service_pb2.MixResponse(chunk=chunk)


def _progress(fraction: float) -> mixer_service_pb2.MixResponse:
    return mixer_service_pb2.MixResponse(progress=audio_pb2.Progress(fraction=fraction, activity="mixing"))
