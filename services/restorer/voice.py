"""Noise taken from a voice by a network, no more of it than there is.

The networks are made for speech. In automatic mode a voice therefore passes through one only where noise was found, and
what is taken away is held against the noise found (`services.restorer.noise_guard`): what goes beyond it is the voice
itself, and is given back. A network that fails is tried once more in smaller blocks; if that fails too, the stem stays
as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from outboard.audio.reporting import EngineInfo, Progress, forward, part
from outboard.audio.spool import Spool, blocks
from services.restorer.attempts import Failure, failure_of
from services.restorer.cells import padded_part
from services.restorer.noise import BandNoise
from services.restorer.noise_guard import NoiseGuard

Audio = NDArray[np.float32]

VOICES = ("lead_vocal", "backing_vocal")
NOISY_SNR_DB = 24.0  # up to here all of the noise is taken ...
CLEAN_SNR_DB = 36.0  # ... and from here on the network would take more of the voice than of the noise
# Voices that never rest read up to 0.32, white noise 10 dB below such ones 0.97 and more.
UNSTEADY, STEADY = 0.35, 0.6
BLOCK_HOPS = (100, 20)  # of 10 ms: the usual blocks of the network, and those of the second attempt
_SHARE_OF_NETWORK = 0.9  # of the work, for progress
_CELL_FRAMES = 65_536


class Denoise(Protocol):
    """Audio of (channels, frames) in, as much out, aligned; ``outboard.models.deepfilternet3.stream.denoised``."""

    def __call__(
        self,
        blocks: Iterable[Audio],
        channels: int,
        sample_rate_hertz: int,
        attenuation_limit_db: float | None = None,
        *,
        block_hops: int = 100,
    ) -> Iterator[Audio]: ...


@dataclass(frozen=True)
class VoiceEngine:
    """A network that takes noise from voices: what is told of it, and what computes."""

    info: EngineInfo
    denoise: Denoise


@dataclass(frozen=True)
class VoicePlan:
    """What is done to a stem.

    Attributes:
        amount: 0 (nothing) to 1.
        reason: why, in a sentence.
        noise: found, beyond which nothing is taken; None: whatever the network takes, since it was asked for.
        attenuation_limit_db: most that anything is lowered; None: no limit.
    """

    amount: float
    reason: str
    noise: BandNoise | None = None
    attenuation_limit_db: float | None = None


def plan(
    role: str,
    amount: float | None,
    limit_db: float | None,
    power: float,
    noise_floor_dbfs: float | None,
    noise: BandNoise | None,
    stationarity: float | None,
) -> VoicePlan:
    """How much noise is taken, of a stem of a mean power.

    Args:
        role: what the stem plays, lower case.
        amount: as asked for, 0 to 1; None: what the noise calls for, in voices only.
        limit_db: most that anything is lowered; None: no limit.
        power: mean power of the stem.
        noise_floor_dbfs: measured; None: it could not be.
        noise: the same by band.
        stationarity: of it, 0 to 1.
    """
    if amount is not None:
        return VoicePlan(amount, "asked for" if amount else "amount 0 was asked for", None, limit_db)
    if role not in VOICES:
        return VoicePlan(0.0, "not a voice, and not asked for")
    if noise_floor_dbfs is None or noise is None or power <= 0.0:
        return VoicePlan(0.0, "too little is heard to tell noise from voice")
    snr_db = 10.0 * np.log10(power) - noise_floor_dbfs
    found = float(np.clip((CLEAN_SNR_DB - snr_db) / (CLEAN_SNR_DB - NOISY_SNR_DB), 0.0, 1.0))
    words = f"noise at {noise_floor_dbfs:.0f} dBFS, {snr_db:.0f} dB below the voice"
    if not found:
        return VoicePlan(0.0, f"{words}, does no harm")
    found *= float(np.clip(((stationarity or 0.0) - UNSTEADY) / (STEADY - UNSTEADY), 0.0, 1.0))
    if not found:
        return VoicePlan(0.0, f"{words}, is not steady enough for noise: a voice that never rests")
    return VoicePlan(found, words, noise, limit_db)


def rendered(
    array: Audio,
    sample_rate_hertz: int,
    engine: VoiceEngine,
    how: VoicePlan,
    directory: Path | None,
    progress: Progress,
) -> tuple[Spool, float] | tuple[None, tuple[Failure, ...]]:
    """The stem without its noise, and how much of what was found by the network was taken in the mean, 0 to 1.

    Returns nothing but what went wrong, once per attempt, where all attempts failed.

    Raises:
        ResourceExhausted: STORAGE_FULL; and what `progress` raises. Both are no matter of the engine.
    """
    failures: list[Failure] = []
    onwards = part(forward(progress), 0.0, _SHARE_OF_NETWORK)
    for block_hops in BLOCK_HOPS:
        with Spool(array.shape[0], directory) as cleaned:
            failure = _cleaned(
                array,
                sample_rate_hertz,
                engine,
                how,
                cleaned,
                block_hops,
                onwards,
            )
            if failure is None:
                return _blended(array, cleaned.array, how, directory, progress)
        failures.append(failure)
        if failure.is_answer:
            break
    return None, tuple(failures)


def _cleaned(
    array: Audio,
    sample_rate_hertz: int,
    engine: VoiceEngine,
    how: VoicePlan,
    into: Spool,
    block_hops: int,
    progress: Callable[[float], None],
) -> Failure | None:
    """All that the network gives, or why it failed."""
    try:
        parts = engine.denoise(
            blocks(array), array.shape[0], sample_rate_hertz, how.attenuation_limit_db, block_hops=block_hops
        )
    except Exception as error:
        return failure_of(error)
    while True:
        try:
            part = next(parts, None)
        except Exception as error:
            return failure_of(error)
        if part is None:
            break
        if part.ndim != 2 or part.shape[0] != array.shape[0] or not np.all(np.isfinite(part)):
            return Failure(
                "MODEL_FAILED", f"the network gave {part.shape} of audio that does not fit, or is not finite"
            )
        into.append(part)
        progress(min(1.0, into.frames / max(1, array.shape[1])))
    if into.frames != array.shape[1]:
        return Failure("MODEL_FAILED", f"the network gave {into.frames} frames for {array.shape[1]}")
    return None


def _blended(
    array: Audio, cleaned: Audio, how: VoicePlan, directory: Path | None, progress: Progress
) -> tuple[Spool, float]:
    """Stem and network's answer, mixed by the amount and by what the noise allows in every band and moment."""
    guard = NoiseGuard(how.noise) if how.noise is not None else None
    size = guard.cell_frames if guard is not None else _CELL_FRAMES
    taken_energy = noise_energy = 0.0
    result = Spool(array.shape[0], directory)
    try:
        for start in range(0, array.shape[1], size):
            original = np.asarray(array[:, start : start + size], np.float32)
            noise = taken = original - cleaned[:, start : start + size]
            if guard is not None:
                around = guard.lookaround_frames
                wide = [padded_part(audio, start - around, size + 2 * around) for audio in (array, cleaned)]
                noise = guard.noise_of(wide[0] - wide[1])[:, : original.shape[1]]
            taken_energy += float(np.sum(np.square(taken, dtype=np.float64)))
            noise_energy += float(np.sum(np.square(noise, dtype=np.float64)))
            result.append(original - np.float32(how.amount) * noise)
            progress(_SHARE_OF_NETWORK + (1 - _SHARE_OF_NETWORK) * result.frames / array.shape[1])
    except BaseException:
        result.close()
        raise
    return result, min(1.0, (noise_energy / taken_energy) ** 0.5) if taken_energy > 0.0 else 1.0
