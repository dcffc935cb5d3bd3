"""One durable step per stage: reads its inputs by key, streams them through the stage, and stores what comes back.

Each step first resolves which engine will run, then names its result by everything that the result depends on. A
result that exists is used as it is, so a step that is run again after a crash, or by another job, costs a look-up.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from outboard import storage
from outboard.audio.stems import MAXIMUM_STEMS, role_from_name
from outboard.errors import Cancelled, Internal, OutboardError
from outboard.v1 import (
    analysis_pb2,
    audio_pb2,
    master_service_pb2,
    mixer_service_pb2,
    restorer_service_pb2,
    separator_service_pb2,
)
from services.orchestrator import ingest
from services.orchestrator.audio_refs import SEPARATED_ROLES, AudioRef, audio_ref
from services.orchestrator.exchange import FROM_STAGE, AudioSink, FileSink, NoSink, audio_chunks, call_stage
from services.orchestrator.job_context import JobContext, Workshop
from services.orchestrator.peers import Peers
from services.orchestrator.plugins import plugin_engine, plugin_names
from services.orchestrator.progress import Stage, State
from services.orchestrator.results import Draft, Result, find, plain, result_prefix
from services.orchestrator.separation import separation_engine, separation_of, sound_numbers, stand_in_warnings
from services.orchestrator.threads import in_thread, stoppable

_LONGEST_CALL_SECONDS = 3600.0
LONGEST_QUEUE_SECONDS = 86_400.0
"""Time that a separation may wait for its turn and for the models."""
ENGINE_HANGS_SECONDS = 3600.0
"""Time without an answer after which separator and restorer take a network to hang."""
RESTORATION_ATTEMPTS = 2
"""How often it tries an engine before it takes the next one."""


@dataclass(frozen=True)
class Source:
    """An upload to read: what to call it, what it plays, and its bytes."""

    name: str
    role: int
    key: str
    sha256: str
    field: str


@dataclass(frozen=True)
class Done:
    """What a step leaves: its result, the audio in it, and warnings (code, message, stem) of the step itself."""

    prefix: str
    audio: tuple[AudioRef, ...] = ()
    warnings: tuple[tuple[str, str, str], ...] = ()


class Steps:
    """The work of each step. Methods take and return small values only: audio moves between store and stages."""

    def __init__(self, workshop: Workshop, peers: Peers, spool_directory: Path | None) -> None:
        self._workshop = workshop
        self._peers = peers
        self._spool_directory = spool_directory

    async def ingest(self, tenant: str, job_id: str, source: Source) -> Done:
        """Decodes an upload to 48 kHz stereo and measures it."""
        job = await self._workshop.open(tenant, job_id)
        engine = audio_pb2.EngineInfo(name=ingest.ENGINE_NAME, version=ingest.ENGINE_VERSION)
        prefix = result_prefix(tenant, "ingest", [engine], {}, [source.sha256])

        async def produce(draft: Draft) -> Mapping[str, Any]:
            target = await draft.open("audio.wav", "audio/wav")
            stop = threading.Event()
            first = job.specification.stages[0]

            def progress(fraction: float) -> None:
                if stop.is_set():
                    raise Cancelled("the job was cancelled")
                job.progress.note_from_thread(first, 0.0, "reading the input")

            def work() -> tuple[dict[str, Any], bytes]:
                with self._workshop.store.local_file(source.key) as path:
                    return ingest.ingest_file(
                        path, target, field=source.field, spool_directory=self._spool_directory, progress=progress
                    )

            facts, cover = await stoppable(work, stop.set)
            if cover:
                await (await draft.open("cover", "application/octet-stream")).write(cover)
            return facts

        result, _ = await self._workshop.result(job, prefix, produce)
        return Done(prefix, (audio_ref(result, "audio.wav", source.name, source.role),))

    async def separate(self, tenant: str, job_id: str, song: Done) -> Done:
        """Song to stems."""
        job = await self._workshop.open(tenant, job_id)
        await job.progress.begin(State.STATE_SEPARATING)
        audio = song.audio[0]
        config = separator_service_pb2.SeparateConfig(
            format=audio.format(), settings=separation_of(job.specification), facts=await self._facts(song)
        )
        engine = await separation_engine(self._peers.separator_engines, job.specification)
        warnings = await stand_in_warnings(self._peers.separator_engines, job.specification, engine)
        config.settings.engine = engine.name
        prefix = result_prefix(tenant, "separate", [engine], plain(config), [audio.sha256])

        async def requests() -> AsyncIterator[separator_service_pb2.SeparateRequest]:
            yield separator_service_pb2.SeparateRequest(config=config)
            async for chunk in audio_chunks(self._workshop.store, audio):
                yield separator_service_pb2.SeparateRequest(chunk=chunk)

        async def produce(draft: Draft) -> Mapping[str, Any]:
            sink = AudioSink(draft, audio.frames, audio.channels, audio.sample_rate_hertz, allowed=SEPARATED_ROLES)
            method, patience = self._peers.separator.Separate, separator_patience(audio)
            call = call_stage(method, requests(), block="separation", tenant=tenant, timeout_seconds=patience)
            report = await _receive(call, sink, job, Stage.STAGE_SEPARATE)
            _check_engine(report.engine, engine)
            return {"audio": ingest.layout(audio.frames), "report": plain(report), "stems": list(report.stems)}

        result, reused = await self._workshop.result(job, prefix, produce)
        job.progress.finish(Stage.STAGE_SEPARATE, reused=reused)
        stems = (audio_ref(result, name, name, SEPARATED_ROLES[name]) for name in result.facts["stems"])
        return Done(prefix, tuple(stems), warnings)

    async def restore(self, tenant: str, job_id: str, stem: AudioRef, names: list[str]) -> Done:
        """One stem to a cleaner stem. A restorer that fails costs the restoration, never the job."""
        job = await self._workshop.open(tenant, job_id)
        await job.progress.begin(State.STATE_RESTORING, {Stage.STAGE_RESTORE: names})
        try:
            result, reused = await self._restored(job, stem)
        except OutboardError as error:
            if FROM_STAGE not in error.metadata:
                raise
            job.progress.finish(Stage.STAGE_RESTORE, stem.name, reused=False)
            warning = ("RESTORATION_FAILED", f"the stem was left as it was: {error.message}", stem.name)
            return Done("", (stem,), (warning,))
        job.progress.finish(Stage.STAGE_RESTORE, stem.name, reused=reused)
        return Done(result.prefix, (audio_ref(result, "", stem.name, stem.role),))

    async def _restored(self, job: JobContext, stem: AudioRef) -> tuple[Result, bool]:
        config = restorer_service_pb2.RestoreConfig(format=stem.format(), settings=job.specification.restoration)
        # A network for voices must know one; what the console hears comes later, so the name has to do.
        role = stem.role or audio_pb2.Role.Value(f"ROLE_{role_from_name(stem.name).upper()}")
        config.settings.role = cast("audio_pb2.Role.ValueType", role)
        engines = [
            await self._peers.restorer_engines.resolve(step.engine, f"job.restoration.steps[{index}].engine")
            for index, step in enumerate(config.settings.steps)
        ]
        if not engines:
            engines = await self._peers.restorer_engines.automatic()
            config.automatic = True
            for engine in engines:
                config.settings.steps.add(engine=engine.name)
        settings = plain(config)
        prefix = result_prefix(job.tenant, "restore", engines, settings, [stem.sha256])

        async def requests() -> AsyncIterator[restorer_service_pb2.RestoreRequest]:
            yield restorer_service_pb2.RestoreRequest(config=config)
            async for chunk in audio_chunks(self._workshop.store, stem):
                yield restorer_service_pb2.RestoreRequest(chunk=chunk)

        async def produce(draft: Draft) -> Mapping[str, Any]:
            sink = AudioSink(draft, stem.frames, stem.channels, stem.sample_rate_hertz, allowed=("",))
            method, patience = self._peers.restorer.Restore, restorer_patience(stem)
            call = call_stage(method, requests(), block="restoration", tenant=job.tenant, timeout_seconds=patience)
            report = await _receive(call, sink, job, Stage.STAGE_RESTORE, stem.name)
            if report.failed_engines:
                # What an engine did not make never serves a request for it: the next job tries it again.
                ran = [engine for engine in engines if engine.name not in report.failed_engines]
                without = settings | {"failed_engines": list(report.failed_engines)}
                other = result_prefix(job.tenant, "restore", ran, without, [stem.sha256])
                await self._workshop.rename(job, draft, other)
            return {"audio": ingest.layout(stem.frames), "report": plain(report)}

        return await self._workshop.result(job, prefix, produce)

    async def mix(
        self, tenant: str, job_id: str, stems: Sequence[AudioRef], song: Done | None, plan_only: bool = False
    ) -> Done:
        """Stems to a mix, or to a plan of one alone."""
        job = await self._workshop.open(tenant, job_id)
        await job.progress.begin(State.STATE_MIXING)
        longest = max(stems, key=lambda stem: stem.frames)
        asked = job.specification
        config = mixer_service_pb2.MixConfig(format=longest.format(), settings=asked.mix, plan_only=plan_only)
        for stem in stems:
            config.stems.add(name=stem.name, role=stem.role, format=stem.format())
        if asked.HasField("mix_plan"):  # then nothing is left that song or preset would decide
            config.plan.CopyFrom(asked.mix_plan)
        else:
            config.preset.CopyFrom(sound_numbers(asked.resolved_preset))
            if song:
                config.song.CopyFrom(await self._analysis(song))
        engine = await self._peers.mixer_engines.resolve(config.settings.engine, "job.mix.engine")
        config.settings.engine = engine.name
        settings, digests = plain(config), [stem.sha256 for stem in stems]
        plugins = await self._peers.plugins(plugin_names(config))
        prefix = result_prefix(tenant, "mix", [engine, *plugins.values()], settings, digests)

        async def requests() -> AsyncIterator[mixer_service_pb2.MixRequest]:
            yield mixer_service_pb2.MixRequest(config=config)
            for stem in stems:
                async for chunk in audio_chunks(self._workshop.store, stem, stem.name):
                    yield mixer_service_pb2.MixRequest(chunk=chunk)

        async def produce(draft: Draft) -> Mapping[str, Any]:
            layout = longest.frames, longest.channels, longest.sample_rate_hertz
            sink = NoSink() if plan_only else AudioSink(draft, *layout, allowed=("",))
            method, patience = self._peers.mixer.Mix, _patience(stems)
            call = call_stage(method, requests(), block="mix", tenant=tenant, timeout_seconds=patience)
            report = await _receive(call, sink, job, Stage.STAGE_MIX)
            _check_engine(report.engine, engine)
            ran = plugins | {run.name: plugin_engine(run) for run in report.plugins}
            if ran != plugins:
                # A plugin broke down at work: what its stand-in made never serves a request for it.
                other = result_prefix(tenant, "mix", [engine, *ran.values()], settings, digests)
                await self._workshop.rename(job, draft, other)
            return {"audio": ingest.layout(longest.frames), "report": plain(report)}

        result, reused = await self._workshop.result(job, prefix, produce)
        job.progress.finish(Stage.STAGE_MIX, reused=reused)
        audio = () if plan_only else (audio_ref(result, "", "mix", audio_pb2.ROLE_UNSPECIFIED),)
        return Done(result.prefix, audio)

    async def master(
        self,
        tenant: str,
        job_id: str,
        mix: AudioRef,
        song: Done | None,
        references: Sequence[AudioRef],
        album: Sequence[Done] = (),
        leader: Done | None = None,
        plan_only: bool = False,
    ) -> Done:
        """A mix to the delivered files, or to a plan of them alone.

        Args:
            album: the songs of the album that it is a part of.
            leader: the master of the album's loudest song, once there is one.
        """
        job = await self._workshop.open(tenant, job_id)
        part = mix.name if album else ""
        names = [other.audio[0].name for other in album]
        await job.progress.begin(State.STATE_MASTERING, {Stage.STAGE_MASTER: names} if album else None)
        config = master_service_pb2.MasterConfig(format=mix.format(), plan_only=plan_only)
        if job.specification.HasField("master_plan"):
            config.plan.CopyFrom(job.specification.master_plan)
            config.settings.engine = config.plan.engine
        else:
            config.settings.CopyFrom(job.specification.mastering)
            config.preset.CopyFrom(sound_numbers(job.specification.resolved_preset))
        for reference in references:
            config.references.add(name=reference.name, format=reference.format())
        config.album.extend([await self._analysis(other) for other in album])
        if leader:
            await self._follow(config.settings, leader)
        if not plan_only:
            await self._tag(config, job, song)
        engine = await self._peers.master_engine(config.settings)
        config.settings.engine = engine.name
        digests = [source.sha256 for source in (mix, *references)]
        prefix = result_prefix(tenant, "master", [engine], plain(config), digests)
        if song and song.audio[0].sha256 == mix.sha256:
            # The mix is the song (nothing was done to it so far): what was measured then still holds.
            config.analysis.CopyFrom(await self._analysis(song))

        async def requests() -> AsyncIterator[master_service_pb2.MasterRequest]:
            yield master_service_pb2.MasterRequest(config=config)
            for source, name in ((mix, ""), *((reference, reference.name) for reference in references)):
                async for chunk in audio_chunks(self._workshop.store, source, name):
                    yield master_service_pb2.MasterRequest(chunk=chunk)

        async def produce(draft: Draft) -> Mapping[str, Any]:
            sink = NoSink() if plan_only else FileSink(draft)
            method, patience = self._peers.master.Master, _patience([mix, *references])
            call = call_stage(method, requests(), block="mastering", tenant=tenant, timeout_seconds=patience)
            report = await _receive(call, sink, job, Stage.STAGE_MASTER, part)
            _check_engine(report.engine, engine)
            return {"report": plain(report), "files": sink.names if isinstance(sink, FileSink) else []}

        _, reused = await self._workshop.result(job, prefix, produce)
        job.progress.finish(Stage.STAGE_MASTER, part, reused=reused)
        return Done(prefix, (mix,))

    async def loudest(self, tenant: str, job_id: str, songs: Sequence[Done]) -> int:
        """Index of the loudest song; the first of several, or where none has a loudness."""
        analyses = [await self._analysis(song) for song in songs]
        levels = [analysis.integrated_lufs if analysis.HasField("integrated_lufs") else -200.0 for analysis in analyses]
        return levels.index(max(levels))

    async def _follow(self, settings: master_service_pb2.MasterSettings, leader: Done) -> None:
        """What the loudest song reached is the album's target, where that fell short of what was asked for."""
        report = (await self._stored(leader.prefix)).message("report", master_service_pb2.MasteringReport)
        # None where only a plan was asked for.
        for delivered in report.deliverables[:1]:
            if delivered.target_missed_reason and delivered.HasField("integrated_lufs"):
                settings.target_lufs = delivered.integrated_lufs

    async def _tag(self, config: master_service_pb2.MasterConfig, job: JobContext, song: Done | None) -> None:
        """Tags and cover of the song, and over them the tags of the request."""
        if song:
            result = await self._stored(song.prefix)
            config.tags.update(result.facts["tags"])
            if "cover" in result.objects:
                config.cover_art = await in_thread(storage.get, self._workshop.store, result.objects["cover"].key)
        config.tags.update(job.specification.tags)

    async def _facts(self, song: Done) -> analysis_pb2.SongFacts:
        analysis = await self._analysis(song)
        facts = analysis_pb2.SongFacts()
        for name in ("mean", "deviation", "integrated_lufs", "bandwidth_hertz"):
            if analysis.HasField(name):
                setattr(facts, name, getattr(analysis, name))
        return facts

    async def _analysis(self, song: Done) -> analysis_pb2.Analysis:
        return (await self._stored(song.prefix)).message("analysis", analysis_pb2.Analysis)

    async def _stored(self, prefix: str) -> Result:
        result = await in_thread(find, self._workshop.store, prefix)
        if result is None:
            raise Internal("a result of an earlier step is gone", reason="ARTIFACT_EXPIRED")
        return result


async def _receive(
    call: AsyncGenerator[Any, None], sink: AudioSink | FileSink | NoSink, job: JobContext, stage: int, part: str = ""
) -> Any:
    """Stores chunks, notes progress, and returns the report that ends the answer."""
    report = None
    async with aclosing(call) as responses:
        async for response in responses:
            kind = response.WhichOneof("response")
            if kind == "chunk":
                await sink.write(response.chunk, getattr(response.chunk, "stem", ""))
            elif kind == "progress":
                job.progress.note(stage, 0.99 * response.progress.fraction, response.progress.activity, part)
            elif kind == "report":
                report = response.report
    if report is None:
        raise Internal("the stage ended without a report")
    sink.check()
    return report


def _check_engine(ran: audio_pb2.EngineInfo, wanted: audio_pb2.EngineInfo) -> None:
    """A result must never be stored under another engine than the one that made it."""
    if (ran.name, ran.version) != (wanted.name, wanted.version):
        message = f"asked for {wanted.name} {wanted.version}, the stage ran {ran.name} {ran.version}"
        raise Internal(message, reason="ENGINE_UNAVAILABLE")


def _patience(sources: Sequence[AudioRef]) -> float:
    """Deadline of a stage's call in seconds: generous, as it only has to catch what hangs."""
    return min(_LONGEST_CALL_SECONDS, 120.0 + 20.0 * sum(source.seconds for source in sources))


def separator_patience(song: AudioRef) -> float:
    """Deadline of a call of the separator in seconds.

    The separator itself tells what hangs. A call may wait long for its turn there, and its windows for a GPU that many
    songs share: a busy day fails no job.
    """
    return LONGEST_QUEUE_SECONDS + ENGINE_HANGS_SECONDS + _patience([song])


def restorer_patience(stem: AudioRef) -> float:
    """Deadline of a call of the restorer in seconds.

    The restorer itself tells what hangs, and replaces it. Were the call to end before, a long queue would decide what a
    stem sounds like. So there is time for the worst that a job can meet: its stems one after the other, each with an
    engine that hangs in every attempt, and then its work by another.
    """
    return MAXIMUM_STEMS * (RESTORATION_ATTEMPTS * ENGINE_HANGS_SECONDS + _patience([stem]))
