"""What a job asks for: checked when it is created, and read by the workflow as a route through the pipeline."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from outboard.audio.files.tags import VORBIS_NAMES
from outboard.audio.stems import MAXIMUM_STEMS
from outboard.errors import InvalidInput, Violation
from outboard.v1 import audio_pb2, job_service_pb2
from services.orchestrator.albums import STAGES, album_conflicts, check_album, titles
from services.orchestrator.plans import SONG_STEM, follows_references, plan_conflicts
from services.orchestrator.progress import Stage
from services.orchestrator.setting_ranges import check_setting_ranges
from services.orchestrator.steps import Source

MAXIMUM_REFERENCES = 8
_ORDER = (Stage.STAGE_SEPARATE, Stage.STAGE_RESTORE, Stage.STAGE_MIX, Stage.STAGE_MASTER)
_NAMES = {stage: Stage.Name(stage).removeprefix("STAGE_").lower() for stage in _ORDER}
_STAGE_OF = (
    ("separation", Stage.STAGE_SEPARATE),
    ("restoration", Stage.STAGE_RESTORE),
    ("mix", Stage.STAGE_MIX),
    ("mastering", Stage.STAGE_MASTER),
    ("mix_plan", Stage.STAGE_MIX),
    ("master_plan", Stage.STAGE_MASTER),
    ("references", Stage.STAGE_MASTER),
    ("tags", Stage.STAGE_MASTER),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{0,64}")
# Names become file names on every system: no separators, no control characters, nothing that begins with a dot.
_STEM = re.compile(r"[^\x00-\x1f\x7f/\\:*?\"<>|.][^\x00-\x1f\x7f/\\:*?\"<>|]{0,99}")
_DELIVERABLE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_RESERVED = frozenset({"mix", "report", "preview_ab"})
_MAXIMUM_TAG_CHARACTERS = 16384
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Route:
    """The way of one job: what is read, and which stages it goes through."""

    sources: tuple[Source, ...]
    references: tuple[Source, ...]
    stages: tuple[int, ...]
    is_song: bool
    is_album: bool = False
    plan_only: bool = False

    @property
    def separates(self) -> bool:
        """Whether the song goes through the separator."""
        return Stage.STAGE_SEPARATE in self.stages

    @property
    def restores(self) -> bool:
        """Whether stems go through the restorer."""
        return Stage.STAGE_RESTORE in self.stages

    @property
    def mixes(self) -> bool:
        """Whether stems go to the console."""
        return Stage.STAGE_MIX in self.stages

    @property
    def masters(self) -> bool:
        """Whether the job makes masters."""
        return Stage.STAGE_MASTER in self.stages

    @property
    def has_stems(self) -> bool:
        """Whether stems are among what the job makes."""
        return self.separates or self.restores


def checked(request: job_service_pb2.CreateJobRequest) -> job_service_pb2.Job:
    """The job that a request asks for, without output fields and with its stages filled in.

    Raises:
        InvalidInput: with one violation per wrong field; OPTIONS_CONFLICT where each is fine by itself.
    """
    job = job_service_pb2.Job()
    job.CopyFrom(request.job)
    for name in ("name", "state", "resolved_preset", "create_time", "update_time", "end_time", "progress", "artifacts"):
        job.ClearField(name)
    job.ClearField("error")
    job.ClearField("report")
    violations = [*_check_request(request), *_check_input(job), *_check_stages(job), *_check_outputs(job)]
    violations += check_setting_ranges(job, stages_of(job))
    if violations:
        raise InvalidInput(violations[0].description, violations=violations)
    if conflicts := _check_conflicts(job):
        raise InvalidInput(conflicts[0].description, reason="OPTIONS_CONFLICT", violations=conflicts)
    job.stages[:] = stages_of(job)
    return job


def stages_of(job: job_service_pb2.Job) -> list[job_service_pb2.Stage.ValueType]:
    """The stages of a job: those it names, or all that its input can go through."""
    if job.stages:
        return list(job.stages)
    if job.WhichOneof("input") == "album":
        return list(STAGES)
    return list(_ORDER) if job.WhichOneof("input") == "song" else list(_ORDER[1:])


def upload_names(job: job_service_pb2.Job) -> list[tuple[str, str]]:
    """Every upload that a job refers to, with the path of the field that names it."""
    if job.WhichOneof("input") == "song":
        named = [(job.song.upload, "job.song.upload")]
    elif job.WhichOneof("input") == "album":
        named = [(song.upload, f"job.album.songs[{index}].upload") for index, song in enumerate(job.album.songs)]
    else:
        named = [(stem.upload, f"job.stems.stems[{index}].upload") for index, stem in enumerate(job.stems.stems)]
    return named + [(name, f"job.references[{index}]") for index, name in enumerate(job.references)]


def check_references(job: job_service_pb2.Job, uploads: Sequence[tuple[str, str]]) -> None:
    """Refuses a song as its own reference: behind the console it would no longer be known again.

    Args:
        job: any.
        uploads: (object key, digest) in the order of `upload_names`.

    Raises:
        InvalidInput: REFERENCE_UNSUITABLE.
    """
    if job.WhichOneof("input") != "song":
        return
    song, *references = [digest for _, digest in uploads]
    same = [
        Violation(f"job.references[{index}]", "the reference is the song itself")
        for index, digest in enumerate(references)
        if digest == song
    ]
    if same:
        raise InvalidInput(same[0].description, reason="REFERENCE_UNSUITABLE", violations=same)


def route(job: job_service_pb2.Job, uploads: Sequence[tuple[str, str]]) -> Route:
    """The route of a stored job; `uploads` are (object key, digest) in the order of `upload_names`."""
    fields = [field for _, field in upload_names(job)]
    kind = job.WhichOneof("input")
    if kind == "song":
        parts = [(SONG_STEM, int(audio_pb2.ROLE_OTHER))]
    elif kind == "album":
        parts = [(title, int(audio_pb2.ROLE_OTHER)) for title in titles(job.album.songs)]
    else:
        parts = [(stem.name, int(stem.role)) for stem in job.stems.stems]
    sources = [
        Source(name, role, key, digest, field)
        for (name, role), (key, digest), field in zip(parts, uploads, fields, strict=False)
    ]
    count = len(parts)
    references = [
        Source(f"reference-{index + 1}", 0, key, digest, field)
        for index, ((key, digest), field) in enumerate(zip(uploads[count:], fields[count:], strict=True))
    ]
    return Route(tuple(sources), tuple(references), tuple(job.stages), kind == "song", kind == "album", job.plan_only)


def _check_request(request: job_service_pb2.CreateJobRequest) -> list[Violation]:
    violations = []
    if not _REQUEST_ID.fullmatch(request.request_id):
        violations.append(Violation("request_id", "a request id is up to 64 letters, digits, '-' and '_'"))
    if len(request.job.display_name) > 200:
        violations.append(Violation("job.display_name", "a display name has at most 200 characters"))
    if not -100 <= request.job.priority <= 100:
        violations.append(Violation("job.priority", f"a priority is -100 to 100, not {request.job.priority}"))
    return violations


def _check_input(job: job_service_pb2.Job) -> list[Violation]:
    kind = job.WhichOneof("input")
    if kind is None:
        return [Violation("job.input", "a job needs a song, stems or an album")]
    if kind == "album":
        return check_album(job)
    if kind == "stems":
        return _check_stems(job.stems)
    return []


def _check_stems(stems: job_service_pb2.StemsInput) -> list[Violation]:
    violations = []
    if not 1 <= len(stems.stems) <= MAXIMUM_STEMS:
        violations.append(Violation("job.stems.stems", f"1 to {MAXIMUM_STEMS} stems, not {len(stems.stems)}"))
    seen: set[str] = set()
    for index, stem in enumerate(stems.stems):
        field = f"job.stems.stems[{index}].name"
        if not _STEM.fullmatch(stem.name) or stem.name != stem.name.strip():
            violations.append(Violation(field, "a stem's name is 1 to 100 characters that a file name may have"))
        elif stem.name.lower() in seen:
            violations.append(Violation(field, f"two stems are called {stem.name!r}"))
        seen.add(stem.name.lower())
    return violations


def _check_stages(job: job_service_pb2.Job) -> list[Violation]:
    stages = list(job.stages)
    if not stages:
        return []
    if any(stage not in _ORDER for stage in stages):
        return [Violation("job.stages", f"stages are {', '.join(_NAMES.values())}")]
    first = _ORDER.index(stages[0])
    if tuple(stages) != _ORDER[first : first + len(stages)]:
        return [
            Violation("job.stages", "stages are a run of separate, restore, mix, master in that order, without gaps")
        ]
    if job.WhichOneof("input") == "stems" and stages[0] == Stage.STAGE_SEPARATE:
        return [Violation("job.stages", "stems are separated already: begin with restore or mix")]
    if job.WhichOneof("input") == "stems" and stages[0] == Stage.STAGE_MASTER:
        return [Violation("job.stages", "the master takes a song: mix the stems first")]
    return []


def _check_conflicts(job: job_service_pb2.Job) -> list[Violation]:
    """What would be accepted and then ignored."""
    stages, violations = stages_of(job), []
    for name, stage in _STAGE_OF:
        block = getattr(job, name)
        given = block.ByteSize() if isinstance(block, Message) else len(block)
        if given and stage not in stages:
            text = f"{name} is for the {_NAMES[stage]} stage, which the job does not go through"
            violations.append(Violation(f"job.{name}", text))
    if job.references and not (violations or follows_references(job)):
        violations.append(Violation("job.references", "only the reference intent follows references"))
    violations += plan_conflicts(job, stages)
    return violations + (album_conflicts(job) if job.WhichOneof("input") == "album" else [])


def _check_outputs(job: job_service_pb2.Job) -> list[Violation]:
    violations = []
    for index, deliverable in enumerate(job.mastering.deliverables):
        field = f"job.mastering.deliverables[{index}].name"
        if not _DELIVERABLE.fullmatch(deliverable.name) or deliverable.name in _RESERVED:
            violations.append(
                Violation(field, "a deliverable's name is letters, digits, '-', '_' and '.', not reserved")
            )
    if len(job.references) > MAXIMUM_REFERENCES:
        violations.append(Violation("job.references", f"at most {MAXIMUM_REFERENCES} references"))
    for key, value in job.tags.items():
        if key not in VORBIS_NAMES:
            text = f"there is no tag {key[:_SHOWN_CHARACTERS]!r}: there are {', '.join(VORBIS_NAMES)}"
            violations.append(Violation(f"job.tags[{key[:_SHOWN_CHARACTERS]}]", text))
        elif len(value) > _MAXIMUM_TAG_CHARACTERS or "\0" in value:
            text = f"a tag has at most {_MAXIMUM_TAG_CHARACTERS} characters, and no NUL"
            violations.append(Violation(f"job.tags[{key}]", text))
    return violations
