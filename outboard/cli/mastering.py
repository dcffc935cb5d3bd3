"""The commands that make masters: of a song, and of an album."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from outboard import errors
from outboard.cli import output
from outboard.cli.deliverables import checked_platform, chosen_references, named_references, parse_deliverables
from outboard.cli.demo import write_demo_song
from outboard.cli.pipeline import (
    AsJson,
    Keep,
    OutputFolder,
    Server,
    SoundProfile,
    StemCount,
    connect,
    existing,
    job_with_preset,
    run_job,
    spare_inputs,
    upload_song,
)
from outboard.cli.plans import OutputOrPlan, PlanFile, PlanOnly, checked_output, job_of, run_plan
from outboard.v1 import master_service_pb2, separator_service_pb2


class Intent(StrEnum):
    """What a master is for."""

    STREAMING = "streaming"
    LOUD = "loud"
    REFERENCE = "reference"
    CUSTOM = "custom"


class Format(StrEnum):
    """Kind of delivered file."""

    WAV = "wav"
    FLAC = "flac"
    MP3 = "mp3"


class Depth(StrEnum):
    """Samples of a delivered file."""

    INT16 = "16"
    INT24 = "24"
    FLOAT32 = "32f"


_WRITTEN = ("master*.*", "mix.wav", "stems/*", "preview_ab.mp3", "report.*")
"""What `master` leaves in its folder."""
Target = Annotated[float | None, typer.Option(help="loudness to reach, LUFS")]
Ceiling = Annotated[float | None, typer.Option(help="true peak not to exceed, dBTP")]
Platform = Annotated[
    str,
    typer.Option(
        help="targets and file of a platform: spotify, apple-music, youtube, tidal, amazon, deezer, club, broadcast"
    ),
]
Deliver = Annotated[
    list[str] | None,
    typer.Option(
        help="a file to deliver, [NAME=]wav|flac|mp3[:RATE][:DEPTH or KBPS]; may be repeated", show_default=False
    ),
]
Intensity = Annotated[float | None, typer.Option(help="how much of the whole treatment, 0 to 100")]


def master(
    song: Annotated[
        Path | None, typer.Argument(help="wav, aiff, flac, mp3, m4a, ogg or opus", show_default=False)
    ] = None,
    folder: OutputOrPlan = None,
    demo: Annotated[bool, typer.Option("--demo", help="a synthesised song instead of a file")] = False,
    intent: Annotated[
        Intent | None,
        typer.Option(help="what the master is for; streaming where not said; custom needs --target-lufs"),
    ] = None,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="song to follow, or a folder, of which the nearest in sound is followed; may be repeated"),
    ] = None,
    engine: Annotated[str, typer.Option(help="mastering engine; none: the best for the intent")] = "",
    intensity: Intensity = None,
    preset: SoundProfile = "",
    platform: Platform = "",
    target_lufs: Target = None,
    ceiling_dbtp: Ceiling = None,
    deliver: Deliver = None,
    format: Annotated[Format | None, typer.Option(help="kind of the one file; wav where not said")] = None,
    sample_rate: Annotated[int | None, typer.Option(help="44100, 48000, 88200 or 96000 Hz")] = None,
    bit_depth: Annotated[Depth | None, typer.Option(help="samples of wav and flac")] = None,
    stems: StemCount = None,
    separation_engine: Annotated[str, typer.Option(help="separation engine; none: the best that can run here")] = "",
    plan: PlanFile = None,
    plan_only: PlanOnly = False,
    keep: Keep = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Turns a song into a master, with its stems, its mix, a preview and a report."""
    if (song is None) != demo:
        raise errors.InvalidInput("name a song, or ask for --demo", field="song", reason="OPTIONS_CONFLICT")
    _check_custom(intent, target_lufs, platform)
    job = job_of(preset, plan)
    settings = master_service_pb2.MasterSettings(
        engine=engine,
        intent=_intent(intent, bool(reference), planned=job.HasField("master_plan")),
        target_lufs=target_lufs,
        ceiling_dbtp=ceiling_dbtp,
        intensity=intensity,
        profile=checked_platform(platform),
        deliverables=delivered_files(deliver, format, sample_rate, bit_depth),
    )
    source = write_demo_song(Path("out") if plan_only else folder or Path("out")) if song is None else song
    existing(source, "song")
    references = _references(source, reference or [], as_json=as_json)
    target = checked_output(folder, [source, *references], plan, _WRITTEN, plan_only=plan_only)
    job.display_name = source.stem[:200]
    job.keep_intermediates = keep
    job.mastering.CopyFrom(settings)
    if separation_engine or stems is not None:
        job.separation.MergeFrom(separator_service_pb2.SeparationSettings(engine=separation_engine, stem_count=stems))
    with connect(server) as client, named_references(references):
        job.song.file_name = source.name
        job.references.extend("" for _ in references)
        client.check_job(job)  # before anything is uploaded
        job.song.CopyFrom(upload_song(client, source))
        job.references[:] = [upload_song(client, file, "reference").upload for file in references]
        if plan_only:
            run_plan(client, job, folder, as_json=as_json)
        else:
            run_job(client, job, target, as_json=as_json)


def album(
    songs: Annotated[list[Path], typer.Argument(help="the songs, in order", show_default=False)],
    folder: OutputFolder = Path("out"),
    intent: Annotated[Intent, typer.Option(help="what the album is for")] = Intent.STREAMING,
    intensity: Intensity = None,
    preset: SoundProfile = "",
    platform: Platform = "",
    target_lufs: Target = None,
    ceiling_dbtp: Ceiling = None,
    deliver: Deliver = None,
    title: Annotated[str, typer.Option(help="the album's title, written into every file")] = "",
    keep: Keep = False,
    server: Server = None,
    as_json: AsJson = False,
) -> None:
    """Masters several songs as one: the loudest at the target, loudness and tone between them kept."""
    if intent == Intent.REFERENCE:
        raise errors.InvalidInput("an album follows no reference", field="intent", reason="OPTIONS_CONFLICT")
    _check_custom(intent, target_lufs, platform)
    for song in songs:
        existing(song, "songs")
    spare_inputs(songs, folder, ("[0-9][0-9]-*.*", "report.*"))
    job = job_with_preset(preset)
    job.display_name = (title or "album")[:200]
    job.keep_intermediates = keep
    job.mastering.CopyFrom(
        master_service_pb2.MasterSettings(
            intent=master_service_pb2.MasterIntent.Value(f"MASTER_INTENT_{intent.name}"),
            target_lufs=target_lufs,
            ceiling_dbtp=ceiling_dbtp,
            intensity=intensity,
            profile=checked_platform(platform),
            deliverables=delivered_files(deliver, None, None, None),
        )
    )
    if title:
        job.tags["album"] = title
    with connect(server) as client:
        job.album.songs.extend(upload_song(client, song, "songs") for song in songs)
        run_job(client, job, folder, as_json=as_json)


def delivered_files(
    deliver: Sequence[str] | None, format: Format | None, sample_rate: int | None, bit_depth: Depth | None
) -> list[master_service_pb2.DeliverableSpec]:
    """The files of ``--deliver``, or the one of ``--format`` and its kin; none said: the server's or platform's.

    Raises:
        InvalidInput: OPTIONS_CONFLICT: both ways at once, or a bit depth for mp3.
    """
    single = format is not None or sample_rate is not None or bit_depth is not None
    if deliver and single:
        raise errors.InvalidInput(
            "--deliver says all of a file: leave out --format, --sample-rate and --bit-depth",
            field="deliver", reason="OPTIONS_CONFLICT",
        )  # fmt: skip
    if deliver:
        return parse_deliverables(list(deliver))
    if not single:
        return []
    if format == Format.MP3 and bit_depth is not None:
        raise errors.InvalidInput("mp3 has no bit depth", field="bit_depth", reason="OPTIONS_CONFLICT")
    spec = master_service_pb2.DeliverableSpec(
        name="master",
        container=master_service_pb2.Container.Value(f"CONTAINER_{(format or Format.WAV).name}"),
        sample_rate_hertz=sample_rate,
    )
    if bit_depth is not None:
        spec.bit_depth = master_service_pb2.BitDepth.Value(f"BIT_DEPTH_{bit_depth.value.upper()}")
    return [spec]


def _check_custom(intent: Intent | None, target_lufs: float | None, platform: str) -> None:
    """Refuses the intent that has no loudness of its own where neither option gives one."""
    if intent == Intent.CUSTOM and target_lufs is None and not platform:
        raise errors.InvalidInput("the custom intent needs --target-lufs", field="target_lufs")


def _intent(asked: Intent | None, has_reference: bool, *, planned: bool) -> master_service_pb2.MasterIntent.ValueType:
    """The intent that is asked for; a plan may hold another, so that none is said beside one."""
    if planned and asked is None:
        return master_service_pb2.MASTER_INTENT_UNSPECIFIED
    if has_reference and asked not in (None, Intent.REFERENCE):
        raise errors.InvalidInput(
            f"--reference and --intent {asked} contradict each other", field="intent", reason="OPTIONS_CONFLICT"
        )
    if asked == Intent.REFERENCE and not has_reference:
        raise errors.InvalidInput(
            "the reference intent needs --reference FILE", field="reference", reason="REFERENCE_UNSUITABLE"
        )
    chosen = Intent.REFERENCE if has_reference else asked or Intent.STREAMING
    return master_service_pb2.MasterIntent.Value(f"MASTER_INTENT_{chosen.name}")


def _references(source: Path, given: list[Path], *, as_json: bool) -> list[Path]:
    for path in given:
        if not path.is_dir():
            existing(path, "reference")
    chosen, told = chosen_references(source, given)
    if told and not as_json:
        output.notices.print(told, highlight=False, markup=False)
    return chosen
