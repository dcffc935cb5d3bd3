"""Steps without a stage service: the analysis of a mix that is not mastered, the before/after comparison, and whether
references can be followed."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outboard.audio.files import decode
from outboard.audio.spool import Spool
from outboard.errors import Cancelled, Internal, InvalidInput, Violation
from outboard.report.comparison import Comparison
from outboard.storage import CHUNK_BYTES
from outboard.v1 import analysis_pb2, audio_pb2, master_service_pb2
from services.orchestrator import ingest
from services.orchestrator.audio_refs import AudioRef
from services.orchestrator.job_context import Workshop
from services.orchestrator.results import Draft, ObjectDraft, Result, find, plain, result_prefix
from services.orchestrator.steps import Done
from services.orchestrator.threads import in_thread, stoppable

if TYPE_CHECKING:
    from outboard.report.preview import Level

PREVIEW_NAME = "preview_ab.mp3"
_PREVIEW = audio_pb2.EngineInfo(name="preview", version=2)
_MEASURE = audio_pb2.EngineInfo(name="analysis", version=ingest.ENGINE_VERSION)
Progress = Callable[[float], None]


class Extras:
    """The work of these steps; like the others they leave named results."""

    def __init__(self, workshop: Workshop, spool_directory: Path | None) -> None:
        self._workshop = workshop
        self._spool_directory = spool_directory

    async def measure(self, tenant: str, job_id: str, audio: AudioRef) -> Done:
        """The analysis of a mix that is not mastered."""
        job = await self._workshop.open(tenant, job_id)
        prefix = result_prefix(tenant, "measure", [_MEASURE], {}, [audio.sha256])

        async def produce(draft: Draft) -> Mapping[str, Any]:
            def work(progress: Progress) -> dict[str, Any]:
                with self._workshop.store.local_file(audio.key) as path:
                    return plain(ingest.measure_stored(path, audio.frames, progress))

            return {"analysis": await _stopping(work)}

        await self._workshop.result(job, prefix, produce)
        return Done(prefix)

    async def check_references(
        self, tenant: str, job_id: str, song: AudioRef | None, references: Sequence[AudioRef]
    ) -> None:
        """Refuses references that nothing can follow, and those that are the song itself, in whatever file.

        The master would refuse the first too, but only when all else is done; the second it would not know behind the
        console.

        Args:
            song: None: the job begins with stems.

        Raises:
            InvalidInput: REFERENCE_UNSUITABLE, a violation per reference.
        """
        await self._workshop.open(tenant, job_id)

        def work(progress: Progress) -> list[Violation]:
            reasons = self._reasons_against(song, references, progress)
            return [
                Violation(f"job.references[{index}]", f"the reference is {why}")
                for index, why in enumerate(reasons)
                if why
            ]

        if wrong := await _stopping(work):
            raise InvalidInput(wrong[0].description, reason="REFERENCE_UNSUITABLE", violations=wrong)

    def _reasons_against(
        self, song: AudioRef | None, references: Sequence[AudioRef], progress: Progress
    ) -> Iterator[str]:
        """What each reference is that it should not be; empty where it can be followed."""
        # Late for the same reason as the analysis.
        from outboard.audio.reference_fitness import unfit
        from outboard.audio.same_recording import courses, likeness
        from outboard.audio.song_profile import measure_profile

        own = None
        if song:
            with self._workshop.store.local_file(song.key) as path:
                own = courses(ingest.mapped(path, song.frames), song.sample_rate_hertz, progress)
        for reference in references:
            with self._workshop.store.local_file(reference.key) as path:
                array, rate = ingest.mapped(path, reference.frames), reference.sample_rate_hertz
                why = unfit(measure_profile(array, rate, progress=progress))
                if not why and own is not None and likeness(own, courses(array, rate, progress)).is_same:
                    why = "the song itself in another file"
                yield why

    async def preview(self, tenant: str, job_id: str, before: AudioRef, song: Done | None, mastering: Done) -> Done:
        """The song (the mix, where there is none) and its first deliverable, alternating at equal loudness."""
        job = await self._workshop.open(tenant, job_id)
        mastered = await self._stored(mastering)
        after = mastered.objects[mastered.facts["files"][0]]
        report = mastered.message("report", master_service_pb2.MasteringReport)
        measured = report.before
        if song:
            measured = (await self._stored(song)).message("analysis", analysis_pb2.Analysis)
        levels = _level(measured), _level(report.after)
        prefix = result_prefix(tenant, "preview", [_PREVIEW], {}, [before.sha256, after.sha256])

        async def produce(draft: Draft) -> Mapping[str, Any]:
            target = await draft.open(PREVIEW_NAME, "audio/mpeg")
            comparison = await _stopping(
                lambda progress: self._write_preview(before, after.key, levels, target, progress)
            )
            return {"files": [PREVIEW_NAME], "comparison": asdict(comparison)}

        await self._workshop.result(job, prefix, produce)
        return Done(prefix)

    async def _stored(self, done: Done) -> Result:
        result = await in_thread(find, self._workshop.store, done.prefix)
        if result is None:
            raise Internal("a result of an earlier step is gone", reason="ARTIFACT_EXPIRED")
        return result

    def _write_preview(
        self,
        before: AudioRef,
        after_key: str,
        levels: tuple[Level, Level],
        target: ObjectDraft,
        progress: Progress,
    ) -> Comparison:
        """Writes the preview, and measures both sides over time for the report."""
        from outboard.report.curves import compare_over_time  # late for the same reason as the analysis
        from outboard.report.preview import write_preview

        store = self._workshop.store
        with (
            store.local_file(before.key) as song_path,
            store.local_file(after_key) as master_path,
            decode(
                master_path,
                sample_rate_hertz=before.sample_rate_hertz,
                spool=lambda channels: Spool(channels, self._spool_directory),
                progress=progress,
            ) as mastered,
            tempfile.TemporaryDirectory(dir=self._spool_directory, prefix="outboard-preview-") as folder,
        ):
            song = ingest.mapped(song_path, before.frames)
            frames = min(song.shape[1], mastered.frames)
            one, other = song[:, :frames], mastered.array[:, :frames]
            path = Path(folder) / PREVIEW_NAME
            write_preview(path, one, other, before.sample_rate_hertz, levels=levels, progress=progress)
            with path.open("rb") as file:
                while piece := file.read(CHUNK_BYTES):
                    target.write_blocking(piece)
            return compare_over_time(one, other, before.sample_rate_hertz, progress)


def _level(analysis: analysis_pb2.Analysis) -> Level:
    from outboard.report.preview import Level

    lufs = analysis.integrated_lufs if analysis.HasField("integrated_lufs") else None
    peak = 10.0 ** (analysis.sample_peak_dbfs / 20.0) if analysis.HasField("sample_peak_dbfs") else 0.0
    return Level(lufs, peak)


async def _stopping(work: Callable[[Progress], Any]) -> Any:
    """Runs blocking work in a thread; a cancelled step stops it at its next report of progress."""
    stop = threading.Event()

    def progress(_fraction: float) -> None:
        if stop.is_set():
            raise Cancelled("the job was cancelled")

    return await stoppable(lambda: work(progress), stop.set)
