"""The master at the wire: protobuf to arrays and back, nothing else. Mix and references are spooled, then rendered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import grpc

from outboard.audio.analysis import Analysis, analyze
from outboard.audio.files import Tags
from outboard.audio.files.tags import VORBIS_NAMES, cover_of
from outboard.audio.reporting import part
from outboard.audio.spool import Spool
from outboard.errors import InvalidInput
from outboard.presets import with_values
from outboard.rpc.bridge import Bridge, StageCall
from outboard.rpc.convert import from_message, to_message
from outboard.rpc.scratch import scratch_folder
from outboard.rpc.stage import RunClock, file_chunks, first_config, spool_streams
from outboard.rpc.streaming import PIECE_BYTES, StreamFormat, checked_format
from outboard.settings import Settings
from outboard.v1 import analysis_pb2, audio_pb2, master_service_pb2, master_service_pb2_grpc, mixer_service_pb2
from services.master.album import plan_in_album
from services.master.master import master
from services.master.plan import plan
from services.master.reference import Reference, decide
from services.master.report import list_engines
from services.master.settings import DeliverableSpec, MasterPlan, MasterSettings, check_plan, check_settings

Context = grpc.aio.ServicerContext[Any, Any]
Call = StageCall[master_service_pb2.MasterRequest, master_service_pb2.MasterResponse]

PLAN = master_service_pb2.MasterPlan
_MOST_REFERENCES = 8
_LARGEST_COVER_BYTES = 2 * 1024 * 1024
_SHOWN_CHARACTERS = 40
# Share of the work that is measuring the mix.
_ANALYSIS_SHARE = 0.15


class MasterServicer(master_service_pb2_grpc.MasterServiceServicer):
    """``outboard.v1.MasterService``."""

    def __init__(self, settings: Settings) -> None:
        self._longest_seconds = settings.limits.maximum_audio_seconds
        self._directory = settings.spool.directory
        self._bridge = Bridge("master", settings.limits)

    def Master(  # noqa: N802 - the contract's name
        self, request_iterator: AsyncIterator[master_service_pb2.MasterRequest], context: Context
    ) -> AsyncIterator[master_service_pb2.MasterResponse]:
        """Render a mix to the files that are delivered."""
        return self._bridge.run(self._master, request_iterator, _progress)

    async def PlanMaster(  # noqa: N802 - the contract's name
        self, request: master_service_pb2.PlanMasterRequest, context: Context
    ) -> master_service_pb2.PlanMasterResponse:
        """Decide all numbers of a master."""
        if request.HasField("plan"):
            return master_service_pb2.PlanMasterResponse(plan=to_message(_given_plan(request.plan, "plan."), PLAN))
        if not request.HasField("analysis"):
            raise InvalidInput("an analysis of the mix is needed", field="analysis")
        analysis = from_message(request.analysis, Analysis, "analysis.")
        settings = from_message(request.settings, MasterSettings, "settings.")
        profile = _profile(request.preset)
        album = _analyses(request.album, "album")
        decided = await asyncio.to_thread(_planned, analysis, album, settings, profile)
        return master_service_pb2.PlanMasterResponse(plan=to_message(decided, PLAN))

    async def ListEngines(  # noqa: N802 - the contract's name
        self, request: master_service_pb2.MasterServiceListEnginesRequest, context: Context
    ) -> master_service_pb2.MasterServiceListEnginesResponse:
        """The engines of this server."""
        engines = [to_message(engine, audio_pb2.EngineInfo) for engine in list_engines()]
        return master_service_pb2.MasterServiceListEnginesResponse(engines=engines)

    def _master(self, call: Call) -> Generator[master_service_pb2.MasterResponse, None, None]:
        clock = RunClock()
        requests = call.requests()
        config = first_config(requests)
        formats = self._formats(config)
        make_spool = partial(Spool, directory=self._directory)
        settings = from_message(config.settings, MasterSettings, "config.settings.")
        profile = _profile(config.preset)
        # What cannot be rendered is refused before the mix is sent.
        rate = formats[""].sample_rate_hertz
        given = _given_plan(config.plan, "config.plan.", rate) if config.HasField("plan") else None
        if given is None:
            check_settings(settings)
        known = from_message(config.analysis, Analysis, "config.analysis.") if config.HasField("analysis") else None
        album = _analyses(config.album, "config.album")
        tags = _tags(config)
        with ExitStack() as stack:
            folder = stack.enter_context(scratch_folder(self._directory))
            spools = {name: stack.enter_context(make_spool(form.channels)) for name, form in formats.items()}
            spool_streams(requests, formats, spools, self._longest_seconds)
            mix = spools[""].array
            references = [
                Reference(name, spools[name].array, form.sample_rate_hertz) for name, form in formats.items() if name
            ]
            _check_analysis(known, mix.shape[1], rate)
            with call.turn():
                before = known or analyze(mix, rate, progress=part(call.progress, 0.0, _ANALYSIS_SHARE))
                planned = given or _planned(before, album, settings, profile)
                if config.plan_only:
                    progress = part(call.progress, _ANALYSIS_SHARE, 1.0)
                    decided = decide(mix, rate, planned, references, make_spool, progress)
                    yield master_service_pb2.MasterResponse(report=_plan_report(decided, before, clock))
                    return
                result = master(
                    mix,
                    rate,
                    planned,
                    directory=folder,
                    references=references,
                    before=before,
                    tags=tags,
                    spool_factory=make_spool,
                    progress=part(call.progress, _ANALYSIS_SHARE, 1.0),
                )
            for file in result.deliverables:
                for chunk in file_chunks(file.path, file.name, PIECE_BYTES):
                    yield master_service_pb2.MasterResponse(chunk=chunk)
            report = to_message(result.report, master_service_pb2.MasteringReport)
            report.run.CopyFrom(clock.run_info(mix.shape[1], rate))
        yield master_service_pb2.MasterResponse(report=report)

    def _formats(self, config: master_service_pb2.MasterConfig) -> dict[str, StreamFormat]:
        """The layout of the mix (named "") and of each reference."""
        if len(config.references) > _MOST_REFERENCES:
            raise InvalidInput(
                f"{len(config.references)} references are too many: {_MOST_REFERENCES} are allowed",
                field="config.references",
            )
        formats = {"": checked_format(config.format, field="config.format", maximum_seconds=self._longest_seconds)}
        for index, reference in enumerate(config.references):
            field = f"config.references[{index}]"
            if not reference.name or reference.name in formats:
                raise InvalidInput("each reference needs a name of its own", field=f"{field}.name")
            form = reference.format if reference.HasField("format") else config.format
            formats[reference.name] = checked_format(
                form, field=f"{field}.format", maximum_seconds=self._longest_seconds
            )
        return formats


def _planned(
    analysis: Analysis, album: Sequence[Analysis], settings: MasterSettings, profile: Mapping[str, float]
) -> MasterPlan:
    return plan_in_album(analysis, album, settings, profile) if album else plan(analysis, settings, profile)


def _analyses(messages: Iterable[analysis_pb2.Analysis], path: str) -> list[Analysis]:
    return [from_message(message, Analysis, f"{path}[{index}].") for index, message in enumerate(messages)]


def _profile(message: mixer_service_pb2.Preset) -> dict[str, float]:
    return with_values(message.name, message.values).values


def _given_plan(message: master_service_pb2.MasterPlan, path: str, sample_rate_hertz: int = 48_000) -> MasterPlan:
    """A plan from outside, checked; its files with the defaults of the contract."""
    given = from_message(message, MasterPlan, path)
    files = tuple(spec.resolved() for spec in given.deliverables)
    given = replace(given, deliverables=files or (DeliverableSpec(),))
    check_plan(given, sample_rate_hertz, path)
    return given


def _plan_report(decided: MasterPlan, before: Analysis, clock: RunClock) -> master_service_pb2.MasteringReport:
    """What is told where nothing is rendered."""
    engine = next(engine for engine in list_engines() if engine.name == decided.engine)
    report = master_service_pb2.MasteringReport(
        engine=to_message(engine, audio_pb2.EngineInfo),
        plan=to_message(decided, PLAN),
        before=to_message(before, analysis_pb2.Analysis),
        decisions=decided.notes,
    )
    report.run.CopyFrom(clock.run_info(before.frames, before.sample_rate_hertz))
    return report


def _check_analysis(given: Analysis | None, frames: int, sample_rate_hertz: int) -> None:
    """Measurements of another length or rate are those of other audio."""
    if given and (given.frames, given.sample_rate_hertz) != (frames, sample_rate_hertz):
        raise InvalidInput(
            f"the analysis is of {given.frames} frames at {given.sample_rate_hertz} Hz, "
            f"the mix has {frames} at {sample_rate_hertz} Hz",
            field="config.analysis",
        )


def _tags(config: master_service_pb2.MasterConfig) -> Tags:
    if len(config.cover_art) > _LARGEST_COVER_BYTES:
        raise InvalidInput(
            f"cover art of {len(config.cover_art)} bytes is too large: {_LARGEST_COVER_BYTES} are allowed",
            field="config.cover_art",
        )
    if unknown := sorted(config.tags.keys() - VORBIS_NAMES.keys()):
        message = f"there is no tag {unknown[0][:_SHOWN_CHARACTERS]!r}: there are {', '.join(VORBIS_NAMES)}"
        raise InvalidInput(message, field="config.tags")
    cover = cover_of(config.cover_art) if config.cover_art else None
    if config.cover_art and cover is None:
        raise InvalidInput("cover art is neither JPEG nor PNG", field="config.cover_art")
    return Tags(dict(config.tags), cover)


def _progress(fraction: float) -> master_service_pb2.MasterResponse:
    return master_service_pb2.MasterResponse(progress=audio_pb2.Progress(fraction=fraction, activity="mastering"))
