"""What a restoration is asked for, found and told: dataclasses with the field names of the wire contract."""

from __future__ import annotations

from dataclasses import dataclass

from outboard.audio.reporting import EngineInfo, Warning
from outboard.errors import InvalidInput

REPAIR = "repair"
DEEPFILTERNET3 = "deepfilternet3"
AUDIOSR = "audiosr"
AUDIOSR_SPEECH = "audiosr_speech"
BANDWIDTH = "bandwidth"
PASSTHROUGH = "passthrough"
AUTOMATIC = (REPAIR, DEEPFILTERNET3, AUDIOSR, BANDWIDTH)
"""The chain where nobody named one, in order."""


@dataclass(frozen=True)
class RestorationStep:
    """One engine in the chain.

    Attributes:
        engine: name.
        amount: 0 (nothing) to 1 (all); None: derived from the diagnosis.
        attenuation_limit_db, diffusion_steps, guidance_scale: for engines that know them; `repair` does not.
    """

    engine: str
    amount: float | None = None
    attenuation_limit_db: float | None = None
    diffusion_steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class RestorationSettings:
    """How to restore one stem.

    Attributes:
        role: what the stem plays, lower case; "" where it is not known.
        steps: in order; none: those of `AUTOMATIC` that can run; one "passthrough": nothing is done.
        seed: of everything random (the noise of `bandwidth` and `audiosr`); None: 0.
    """

    role: str = ""
    steps: tuple[RestorationStep, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What was measured on a stem; None where it cannot be, or is not, measured.

    Attributes:
        bandwidth_hertz: where the spectrum ends (`outboard.audio.cutoff`).
        bandwidth_slope_db_per_octave: how steeply, positive.
        brick_wall: whether it was cut off there (a codec, a low-pass) and did not fade.
        spectral_hole_ratio: share of what sounds that was emptied with abrupt ends (`outboard.audio.hole_filling`).
        shimmer_index: metallic peaks at 8 to 12 kHz, 0 clean to 1 severe (`outboard.audio.resonance`).
        grid_tone_index: level of steady tones on a fixed grid, 0 to 1 (`outboard.audio.grid_tones`).
        grid_tones: how many of them were found.
        grid_spacing_hertz: of the grid they stand on.
        noise_floor_dbfs: mean power of what every band never falls below (`services.restorer.noise`).
        noise_stationarity: how steady that is, 0 to 1.
        sibilance_index: how far sibilants stand out of a voice, 0 to 1 (`services.restorer.sibilance`).
        clipped_samples: in flat runs of at least three at the top of a channel.
        dc_offset: mean of each channel, as a fraction of full scale.
        codec_hole_ratio: share of lines that an MP3 coder rounded to zero (`outboard.audio.mp3_mending`); None where
            its grid was not found.
    """

    bandwidth_hertz: float | None = None
    bandwidth_slope_db_per_octave: float | None = None
    brick_wall: bool = False
    spectral_hole_ratio: float | None = None
    shimmer_index: float | None = None
    grid_tone_index: float | None = None
    grid_tones: int = 0
    grid_spacing_hertz: float | None = None
    noise_floor_dbfs: float | None = None
    noise_stationarity: float | None = None
    sibilance_index: float | None = None
    clipped_samples: int = 0
    dc_offset: tuple[float, ...] = ()
    codec_hole_ratio: float | None = None


@dataclass(frozen=True)
class RestorationAction:
    """One treatment, done or left alone.

    Attributes:
        engine, treatment: for instance "repair" and "declip", "dc" or "resonance"; "bandwidth" and "extension".
        amount: 0 to 1; 0 where it was left alone.
        reason: why, in a sentence.
        before, after: the measure that decided (clipped samples, largest DC, shimmer index, noise in dBFS, bandwidth in
            Hz).
        unmet: whether it was called for and stays undone, by this engine and every other.
    """

    engine: str
    treatment: str
    amount: float
    reason: str
    before: float | None = None
    after: float | None = None
    unmet: bool = False


@dataclass(frozen=True)
class RestorationReport:
    """What was found and what was done.

    Attributes:
        engines: that ran, in order.
        found, left: the stem before and afterwards.
        actions: everything considered.
        frames: of the stem.
        unchanged: whether the audio came back bit by bit.
        warnings: what a person should know.
        failed_engines: that were to run and failed; the audio is as if they had not been asked for.
    """

    engines: tuple[EngineInfo, ...]
    found: Diagnosis
    left: Diagnosis
    actions: tuple[RestorationAction, ...]
    frames: int
    unchanged: bool
    warnings: tuple[Warning, ...] = ()
    failed_engines: tuple[str, ...] = ()


ENGINES: tuple[EngineInfo, ...] = (
    EngineInfo(
        REPAIR,
        8,
        description="Redraws clipped peaks, removes DC and tones on a fixed grid, fills holes and what an MP3 coder "
        "rounded away, tames resonances at 8 to 12 kHz and sibilants.",
    ),
    EngineInfo(
        DEEPFILTERNET3,
        2,
        backend="torch",
        precision="float32",
        description="Takes noise from voices, where it is found or where it is asked for: a network made for speech.",
    ),
    EngineInfo(
        AUDIOSR,
        2,
        backend="torch",
        device="cuda",
        description="Draws a new top for a stem that was cut off below 17.5 kHz: a diffusion network, on a GPU.",
    ),
    EngineInfo(
        AUDIOSR_SPEECH,
        1,
        backend="torch",
        device="cuda",
        description="The same for the spoken word, where it is asked for with an amount.",
    ),
    EngineInfo(
        BANDWIDTH,
        5,
        description="Gives a stem that was cut off a new top: the band below the wall, in the stem's own envelope.",
    ),
    EngineInfo(PASSTHROUGH, 1, description="Leaves the stem as it is, bit by bit."),
)


def engines() -> tuple[EngineInfo, ...]:
    """All engines, in the order of the automatic chain, whether they can run here or not."""
    return ENGINES


def resolved_steps(settings: RestorationSettings) -> tuple[RestorationStep, ...]:
    """The chain to run, checked.

    Raises:
        InvalidInput: ENGINE_UNKNOWN, an amount outside of 0 to 1, or a step beside "passthrough".
    """
    known = {engine.name for engine in ENGINES}
    for index, step in enumerate(settings.steps):
        where = f"settings.steps[{index}]"
        if step.engine not in known:
            raise InvalidInput(
                f"engine {step.engine!r} is unknown; known are {', '.join(sorted(known))}",
                reason="ENGINE_UNKNOWN",
                field=f"{where}.engine",
            )
        if step.amount is not None and not 0.0 <= step.amount <= 1.0:
            raise InvalidInput(f"amount must lie in 0 to 1, not {step.amount}", field=f"{where}.amount")
        limit_db = step.attenuation_limit_db
        if limit_db is not None and not 0.0 < limit_db <= 100.0:
            raise InvalidInput(
                f"attenuation_limit_db must lie above 0 and up to 100, not {limit_db}",
                field=f"{where}.attenuation_limit_db",
            )
        _check_range(step.diffusion_steps, 10, 200, f"{where}.diffusion_steps")
        _check_range(step.guidance_scale, 1.0, 10.0, f"{where}.guidance_scale")
        if step.engine == PASSTHROUGH and len(settings.steps) > 1:
            raise InvalidInput("passthrough stands alone", reason="OPTIONS_CONFLICT", field=where)
    names = [step.engine for step in settings.steps]
    if len(set(names)) != len(names):
        raise InvalidInput("an engine stands in the chain twice", reason="OPTIONS_CONFLICT", field="settings.steps")
    return settings.steps or tuple(RestorationStep(engine) for engine in AUTOMATIC)


def _check_range(number: float | None, least: float, most: float, field: str) -> None:
    if number is not None and not least <= number <= most:
        name = field.rpartition(".")[2]
        raise InvalidInput(f"{name} must lie in {least} to {most}, not {number}", field=field)
