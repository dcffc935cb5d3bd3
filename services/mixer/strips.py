"""What one strip needs by itself: its fader, its filters, its dynamics, its width. One rule each, from measurement."""

from __future__ import annotations

import math

from outboard.audio.analysis import Analysis
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.processors import (
    Compressor,
    DeEsser,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    Processor,
    Saturator,
    StereoWidth,
    TransientShaper,
)
from outboard.audio.saturation import SaturationCurve
from outboard.audio.stems import OTHER
from services.mixer.brief import MAX_EQUALIZER_DB, Brief, beyond
from services.mixer.console import Strip
from services.mixer.hearing import SIBILANCE_HERTZ
from services.mixer.roles import DRUMS, LOW, VOICES

LABELS = ("high_pass", "clean_up", "de_esser", "presence", "compressor", "transients", "saturation", "width")
# Separated stems stay within this of the song's balance.
MAX_MOVE_DB = 3.0
# A separated stem this far under the song is bleed: it is never raised.
BLEED_LU = 30.0
# A separated stem that holds more of the song's 60 to 200 Hz than this keeps it: cutting it would thin the song.
_CARRIED_LOWS_DB = -20.0


def strip_of(brief: Brief, name: str, role: str) -> Strip:
    """One stem's channel."""
    measured = brief.analyses[name]
    if measured.integrated_lufs is None:
        brief.note(f"{name} is silent or shorter than 400 ms: it passes through as it is.")
        return Strip(name, role)
    chain = (
        _high_pass(brief, name, role, measured),
        _clean_up(brief, name, role, measured),
        _de_esser(brief, name, role),
        _presence(brief, name, role, measured),
        _drum_compressor(brief, name, role, measured),
        _transients(brief, name, role, measured),
        _saturation(brief, name, role, measured),
        _width(brief, name, role, measured),
    )
    processors = tuple(brief.slot(processor) for processor in chain if processor is not None)
    return Strip(name, role, gain_db=_gain_db(brief, name, role, measured), chain=processors)


def _gain_db(brief: Brief, name: str, role: str, measured: Analysis) -> float:
    """Fader: the song's balance for separated stems, the role's level for supplied ones."""
    if brief.settings.respect_user_gains or measured.integrated_lufs is None:
        return 0.0
    p = brief.preset
    if brief.song is None:
        wanted = p["mix.working_level_lufs"] + p[f"mix.level.{role}_db"]
        brief.note(f"{name} is staged from {measured.integrated_lufs:.1f} to {wanted:.1f} LUFS as {role}.")
        return wanted - measured.integrated_lufs
    if brief.song.integrated_lufs is None:
        return 0.0
    under = measured.integrated_lufs - brief.song.integrated_lufs
    # Where the role would stand if the lead vocal were 4 LU under the song: where it is in most records.
    off = under - (p[f"mix.level.{role}_db"] - 4.0)
    excess = math.copysign(max(0.0, abs(off) - p["mix.balance_tolerance_db"]), off)
    move = -brief.amount * min(max(0.5 * excess, -MAX_MOVE_DB), MAX_MOVE_DB)
    if move > 0.0 and is_bleed(brief, name):
        return 0.0
    if move:
        brief.note(f"{name} is {under:+.1f} LU from the song, {abs(off):.1f} off its place: {move:+.1f} dB.")
    return move


def is_bleed(brief: Brief, name: str) -> bool:
    """Whether a separated stem holds nothing but what leaked into it."""
    own, whole = brief.analyses[name].integrated_lufs, brief.song.integrated_lufs if brief.song else None
    return own is not None and whole is not None and own - whole <= -BLEED_LU


def _high_pass(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """Voices and such carry rumble down there; a separated stem may carry a part of the song's lows."""
    if role in VOICES:
        corner = brief.preset["mix.vocals.high_pass_hertz"]
    elif role == OTHER:
        corner = brief.preset["mix.other.high_pass_hertz"]
    else:
        return None
    carried = _share_of_lows_db(brief, measured)
    if carried > _CARRIED_LOWS_DB:
        brief.note(f"{name} holds a part of the song's lows ({carried:.0f} dB): no high-pass there.")
        return None
    return Processor("high_pass", Equalizer((FilterBand("high_pass", corner, order=2),)))


def _share_of_lows_db(brief: Brief, measured: Analysis) -> float:
    """Power of a separated stem at 60 to 200 Hz over the song's; far down for supplied stems."""
    if brief.song is None or brief.song.rms_dbfs is None or measured.rms_dbfs is None:
        return -math.inf
    levels = [
        whole.rms_dbfs + band.level_db
        for whole in (measured, brief.song)
        for band in whole.band_levels
        if whole.rms_dbfs is not None and band.low_hertz <= 100.0 < band.high_hertz
    ]
    return levels[0] - levels[1] if len(levels) == 2 else -math.inf


def _clean_up(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """A dynamic cut of the low middle, as deep as the mud index says, while the band stands out."""
    p = brief.preset
    index = brief.song.mud_index if brief.song is not None else measured.mud_index
    depth = brief.amount * min(p["mix.mud_cut_db"], MAX_EQUALIZER_DB) * beyond(index, p["mix.mud_tolerance"])
    # A voice or a drum by itself is no congested mix; in a song all parts share the song's.
    if depth < 0.25 or (brief.song is None and role in LOW | VOICES | DRUMS):
        return None
    brief.note(f"{name}: the low middle is congested ({index:.2f}); up to {depth:.1f} dB are cut there.")
    band = DynamicBandSettings(
        frequency_hertz=p["mix.mud_hertz"],
        q=p["mix.mud_q"],
        ratio=4.0,
        range_db=-depth,
        relative_threshold_db=-20.0,
        attack_ms=15.0,
        release_ms=120.0,
    )
    return Processor("clean_up", DynamicEqualizer((band,)))


def _presence(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """A lift around 4 kHz for a voice that is duller than voices are."""
    if role not in VOICES:
        return None
    p = brief.preset
    band = next((b for b in measured.band_levels if b.low_hertz <= 3000.0 < b.high_hertz), None)
    if band is None:
        return None
    lacking = -band.deviation_db - p["mix.vocals.presence_tolerance_db"]
    gain = brief.amount * min(p["mix.vocals.presence_db"], MAX_EQUALIZER_DB, 0.5 * lacking)
    if gain < 0.25:
        return None
    brief.note(f"{name} is {-band.deviation_db:.1f} dB short of presence: {gain:+.1f} dB.")
    bell = FilterBand("peak", p["mix.vocals.presence_hertz"], gain, 0.8)
    return Processor("presence", Equalizer((bell,)))


def _de_esser(brief: Brief, name: str, role: str) -> Processor | None:
    """Sibilants of a voice that stand out are turned down while they do."""
    heard = brief.heard.get(name)
    if role not in VOICES or heard is None or heard.sibilance_db is None:
        return None
    p = brief.preset
    excess = heard.sibilance_db - p["mix.sibilance.tolerance_db"]
    depth = brief.amount * min(p["mix.sibilance.cut_db"], MAX_EQUALIZER_DB, excess)
    if depth < 0.25:
        return None
    brief.note(f"Sibilants of {name} are {heard.sibilance_db:+.1f} dB against it: down by up to {depth:.1f} dB.")
    settings = DeEsser(SIBILANCE_HERTZ, p["mix.sibilance.tolerance_db"], ratio=4.0, range_db=-depth)
    return Processor("de_esser", settings)


def _saturation(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """Harmonics where the preset wants them, driven from the strip's own peaks."""
    family = "drums" if role in DRUMS else "bass" if role == "bass" else "vocals" if role in VOICES else "music"
    share = brief.amount * brief.preset[f"mix.saturation.{family}_mix"]
    if share < 0.02 or measured.sample_peak_dbfs is None:
        return None
    drive = brief.preset["mix.saturation.drive_db"] - measured.sample_peak_dbfs
    brief.note(f"{name}: {100 * share:.0f} % of saturation.")
    curve: SaturationCurve = "tube" if family in ("bass", "vocals") else "tape"
    return Processor("saturation", Saturator(curve, min(max(drive, -24.0), 48.0), share))


def _drum_compressor(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """Compression of drums whose peaks stick out; none for drums that were pressed already."""
    if role not in DRUMS or measured.crest_factor_db is None or measured.sample_peak_dbfs is None:
        return None
    p = brief.preset
    excess = measured.crest_factor_db - p["mix.drums.crest_db"]
    if excess <= 0.0 or brief.amount == 0.0:
        return None
    # Peaks alone: the threshold lies just under them, so the average stays under 3 dB by far.
    threshold = measured.sample_peak_dbfs - min(12.0, 2.0 * excess)
    brief.note(f"{name} peaks {measured.crest_factor_db:.1f} dB over its level: peaks are compressed.")
    ratio = 1.0 + brief.amount * (p["mix.drums.ratio"] - 1.0)
    return Processor(
        "compressor",
        Compressor(
            threshold_db=threshold,
            ratio=ratio,
            attack_ms=p["mix.drums.attack_ms"],
            release_ms=p["mix.drums.release_ms"],
            detector="peak",
            hold_ms=10.0,
        ),
    )


def _transients(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """Onsets given back to drums of a song that was pressed flat."""
    if role not in DRUMS or brief.song is None:
        return None
    flat = beyond(brief.song.flat_dynamics_index, brief.preset["mix.flat_tolerance"])
    lift = brief.amount * flat * brief.preset["mix.attack_db"]
    if lift < 0.25:
        return None
    brief.note(f"{name}: dynamics are flat ({flat:.2f}); onsets are lifted by up to {lift:.1f} dB.")
    return Processor("transients", TransientShaper(attack_db=lift))


def _width(brief: Brief, name: str, role: str, measured: Analysis) -> Processor | None:
    """Sides of a single strip that are louder than the middle; low strips go to the middle."""
    p = brief.preset
    ratio = measured.mid_side_ratio_db
    mono_below = p["mix.mono_below_hertz"] if role in LOW and brief.song is None and measured.channels > 1 else 0.0
    if ratio is None or measured.channels < 2:
        return None
    # Separated stems are narrowed as a song, on the mix: there only what is extreme even for one part counts.
    limit = p["mix.width_limit_db"] if brief.song is None else 0.0
    narrow = 10.0 ** (-brief.amount * max(0.0, ratio - limit) / 20.0)
    side_gain = min(narrow, brief.width_cap)
    if side_gain > 0.99 and not mono_below:
        return None
    brief.note(f"{name}: side is at {ratio:+.1f} dB against mid; it is scaled by {side_gain:.2f}.")
    return Processor("width", StereoWidth(side_gain=side_gain, mono_below_hertz=mono_below))
