"""Decides all numbers of a mix from measurements. Nothing is done by habit: every move answers a measured excess.

Two cases. *Separated* stems (the song's own analysis is given) already hold a balance and share one song's faults:
they keep their levels within 3 dB, and what the whole song shows (a low middle that is congested, sides too loud or
leaning, a top that is missing, dynamics pressed flat) is mended in proportion to how far it is beyond what released
recordings show. *Supplied* stems (no song) are staged to a working level and balanced from scratch by role.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from outboard.audio.analysis import Analysis
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.processors import (
    BandExtender,
    Compressor,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    Processor,
    StereoField,
    StereoWidth,
    TransientShaper,
)
from outboard.audio.stereo import MAX_SIDE_GAIN, StereoFieldBand
from outboard.errors import InvalidInput, Violation
from outboard.presets import Preset, nearest
from services.mixer.check import PEAK_TARGET_DBFS_RANGE
from services.mixer.console import ENGINES, MAX_STEMS, PASSTHROUGH, MixPlan, MixSettings, Strip
from services.mixer.interplay import LABELS as INTERPLAY_LABELS
from services.mixer.interplay import Interplay, routed
from services.mixer.masking import Levels
from services.mixer.roles import DRUMS, LOW, OTHER, VOICES, role_from_name

PEAK_TARGET_DBFS = -6.0
# Separated stems stay within this of the song's balance.
MAX_MOVE_DB = 3.0
# A separated stem this far under the song is bleed: it is never raised.
BLEED_LU = 30.0
# No band of any equaliser moves further.
MAX_EQUALIZER_DB = 4.0
# Beyond their limits by this much, width and pressed dynamics are met in full.
_FULL_WIDTH_EXCESS_DB = 1.5
_FULL_CREST_LACK_DB = 2.5
# A separated stem that holds more of the song's 60 to 200 Hz than this keeps it: cutting it would thin the song.
_CARRIED_LOWS_DB = -20.0
LABELS = (
    "high_pass", "clean_up", "presence", "compressor", "transients", "width", "stereo_field", "expander", "air",
    *INTERPLAY_LABELS,
)  # fmt: skip


def plan(
    analyses: Mapping[str, Analysis],
    roles: Mapping[str, str],
    song: Analysis | None,
    preset: Preset,
    settings: MixSettings,
    confidences: Mapping[str, float] | None = None,
    levels: Mapping[str, Levels] | None = None,
) -> MixPlan:
    """All numbers of a mix; pure.

    Args:
        analyses: measurements by stem name, 1 to 12.
        roles: role by stem name; missing or ``unspecified`` ones are read off the name.
        song: measurements of the song that the stems were separated from; None for supplied stems.
        preset: the sound profile's numbers.
        settings: what was asked for.
        confidences: how sure the roles are, by stem name, for the plan's reader; nothing is decided by them.
        levels: what `erb_levels` measured, by stem name; without it no strip gives way to another.

    Raises:
        InvalidInput: too few or too many stems, a setting out of range, an unknown label in ``bypass``.
    """
    check_settings(settings)
    if not 1 <= len(analyses) <= MAX_STEMS:
        raise InvalidInput(f"a mix takes 1 to {MAX_STEMS} stems, not {len(analyses)}", field="stems")
    names = sorted(analyses)
    role = {name: _role(name, roles) for name in names}
    if not decides(settings):
        strips = tuple(Strip(name, role[name]) for name in names)
        return MixPlan(strips, notes=("All processors are out: the mix is the sum of its stems.",))
    desk = _Planner(analyses, song, preset, settings)
    sure = confidences or {}
    strips = tuple(dataclasses.replace(desk.strip(name, role[name]), role_confidence=sure.get(name)) for name in names)
    strips, buses = routed(desk.interplay(strips, levels or {}))
    peak = PEAK_TARGET_DBFS if settings.peak_target_dbfs is None else settings.peak_target_dbfs
    chain = desk.master_chain()
    return MixPlan(strips, buses, master_chain=chain, notes=tuple(desk.notes), peak_target_dbfs=peak)


def decides(settings: MixSettings) -> bool:
    """Whether a plan with these settings depends on measurements; a bypassed console does not."""
    return not settings.bypass_all and settings.engine != PASSTHROUGH


def check_settings(settings: MixSettings) -> None:
    """Refuses what cannot be planned.

    Raises:
        InvalidInput: one violation per field; ENGINE_UNKNOWN for the engine, INVALID_ARGUMENT for the others.
    """
    wrong: list[Violation] = []
    reason = "INVALID_ARGUMENT"
    names = tuple(engine.name for engine in ENGINES)
    if settings.engine not in ("", *names):
        reason = "ENGINE_UNKNOWN"
        text = f"unknown engine {settings.engine!r}{nearest(settings.engine, names)}: there are {', '.join(names)}"
        wrong.append(Violation("settings.engine", text))
    wrong.extend(
        Violation(
            "settings.bypass", f"unknown processor {label!r}{nearest(label, LABELS)}: there are {', '.join(LABELS)}"
        )
        for label in settings.bypass
        if label not in LABELS
    )
    ranges = (
        ("width_cap", settings.width_cap, 0.0, MAX_SIDE_GAIN),
        ("peak_target_dbfs", settings.peak_target_dbfs, *PEAK_TARGET_DBFS_RANGE),
        ("intensity", settings.intensity, 0.0, 100.0),
    )
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            wrong.append(Violation(f"settings.{name}", f"{name} is {value:g}, must be {low:g} to {high:g}"))
    if wrong:
        raise InvalidInput(wrong[0].description, reason=reason, violations=wrong)
    if not decides(settings):
        what = "engine passthrough" if settings.engine == PASSTHROUGH else "bypass_all"
        ignored = [
            Violation(f"settings.{name}", f"{what} sums the stems as they are: {name} would do nothing")
            for name in ("bypass", "width_cap", "peak_target_dbfs", "intensity")
            if getattr(settings, name) not in (None, ())
        ]
        if ignored:
            raise InvalidInput(ignored[0].description, reason="OPTIONS_CONFLICT", violations=ignored)


def _role(name: str, roles: Mapping[str, str]) -> str:
    given = roles.get(name, "")
    return given if given not in ("", "unspecified") else role_from_name(name)


def _beyond(value: float | None, tolerance: float) -> float:
    """How much of the way from ``tolerance`` to 1 an index has gone, 0 to 1."""
    if value is None or value <= tolerance or tolerance >= 1.0:
        return 0.0
    return min(1.0, (value - tolerance) / (1.0 - tolerance))


class _Planner:
    """The decisions, one method each; ``notes`` gathers their reasons."""

    def __init__(
        self, analyses: Mapping[str, Analysis], song: Analysis | None, preset: Preset, settings: MixSettings
    ) -> None:
        self._analyses = analyses
        self._song = song
        self._preset = preset
        self._settings = settings
        self._amount = (100.0 if settings.intensity is None else settings.intensity) / 100.0
        self._width_cap = MAX_SIDE_GAIN if settings.width_cap is None else settings.width_cap
        self.notes: list[str] = []

    # --- strips -----------------------------------------------------------------------------------------------------

    def strip(self, name: str, role: str) -> Strip:
        """One stem's channel."""
        measured = self._analyses[name]
        if measured.integrated_lufs is None:
            self.notes.append(f"{name} is silent or shorter than 400 ms: it passes through as it is.")
            return Strip(name, role)
        chain = (
            self._high_pass(name, role, measured),
            self._clean_up(name, role, measured),
            self._presence(name, role, measured),
            self._drum_compressor(name, role, measured),
            self._transients(name, role, measured),
            self._width(name, role, measured),
        )
        processors = tuple(self._slot(processor) for processor in chain if processor is not None)
        return Strip(name, role, gain_db=self._gain_db(name, role, measured), chain=processors)

    def _slot(self, processor: Processor) -> Processor:
        return dataclasses.replace(processor, bypass=processor.label in self._settings.bypass)

    def _gain_db(self, name: str, role: str, measured: Analysis) -> float:
        """Fader: the song's balance for separated stems, the role's level for supplied ones."""
        if self._settings.respect_user_gains or measured.integrated_lufs is None:
            return 0.0
        p = self._preset
        if self._song is None:
            wanted = p["mix.working_level_lufs"] + p[f"mix.level.{role}_db"]
            self.notes.append(f"{name} is staged from {measured.integrated_lufs:.1f} to {wanted:.1f} LUFS as {role}.")
            return wanted - measured.integrated_lufs
        if self._song.integrated_lufs is None:
            return 0.0
        under = measured.integrated_lufs - self._song.integrated_lufs
        # Where the role would stand if the lead vocal were 4 LU under the song: where it is in most records.
        off = under - (p[f"mix.level.{role}_db"] - 4.0)
        excess = math.copysign(max(0.0, abs(off) - p["mix.balance_tolerance_db"]), off)
        move = -self._amount * min(max(0.5 * excess, -MAX_MOVE_DB), MAX_MOVE_DB)
        if move > 0.0 and under <= -BLEED_LU:
            return 0.0
        if move:
            self.notes.append(f"{name} is {under:+.1f} LU from the song, {abs(off):.1f} off its place: {move:+.1f} dB.")
        return move

    def _high_pass(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """Voices and such carry rumble down there; a separated stem may carry a part of the song's lows."""
        if role in VOICES:
            corner = self._preset["mix.vocals.high_pass_hertz"]
        elif role == OTHER:
            corner = self._preset["mix.other.high_pass_hertz"]
        else:
            return None
        carried = self._share_of_lows_db(measured)
        if carried > _CARRIED_LOWS_DB:
            self.notes.append(f"{name} holds a part of the song's lows ({carried:.0f} dB): no high-pass there.")
            return None
        return Processor("high_pass", Equalizer((FilterBand("high_pass", corner, order=2),)))

    def _share_of_lows_db(self, measured: Analysis) -> float:
        """Power of a separated stem at 60 to 200 Hz over the song's; far down for supplied stems."""
        if self._song is None or self._song.rms_dbfs is None or measured.rms_dbfs is None:
            return -math.inf
        levels = [
            whole.rms_dbfs + band.level_db
            for whole in (measured, self._song)
            for band in whole.band_levels
            if whole.rms_dbfs is not None and band.low_hertz <= 100.0 < band.high_hertz
        ]
        return levels[0] - levels[1] if len(levels) == 2 else -math.inf

    def _clean_up(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """A dynamic cut of the low middle, as deep as the mud index says, while the band stands out."""
        p = self._preset
        index = self._song.mud_index if self._song is not None else measured.mud_index
        depth = self._amount * min(p["mix.mud_cut_db"], MAX_EQUALIZER_DB) * _beyond(index, p["mix.mud_tolerance"])
        if depth < 0.25 or (role in LOW and self._song is None):
            return None
        self.notes.append(f"{name}: the low middle is congested ({index:.2f}); up to {depth:.1f} dB are cut there.")
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

    def _presence(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """A lift around 4 kHz for a voice that is duller than voices are."""
        if role not in VOICES:
            return None
        p = self._preset
        band = next((b for b in measured.band_levels if b.low_hertz <= 3000.0 < b.high_hertz), None)
        if band is None:
            return None
        lacking = -band.deviation_db - p["mix.vocals.presence_tolerance_db"]
        gain = self._amount * min(p["mix.vocals.presence_db"], MAX_EQUALIZER_DB, 0.5 * lacking)
        if gain < 0.25:
            return None
        self.notes.append(f"{name} is {-band.deviation_db:.1f} dB short of presence: {gain:+.1f} dB.")
        bell = FilterBand("peak", p["mix.vocals.presence_hertz"], gain, 0.8)
        return Processor("presence", Equalizer((bell,)))

    def _drum_compressor(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """Compression of drums whose peaks stick out; none for drums that were pressed already."""
        if role not in DRUMS or measured.crest_factor_db is None or measured.sample_peak_dbfs is None:
            return None
        p = self._preset
        excess = measured.crest_factor_db - p["mix.drums.crest_db"]
        if excess <= 0.0 or self._amount == 0.0:
            return None
        # Peaks alone: the threshold lies just under them, so the average stays under 3 dB by far.
        threshold = measured.sample_peak_dbfs - min(12.0, 2.0 * excess)
        self.notes.append(f"{name} peaks {measured.crest_factor_db:.1f} dB over its level: peaks are compressed.")
        ratio = 1.0 + self._amount * (p["mix.drums.ratio"] - 1.0)
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

    def _transients(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """Onsets given back to drums of a song that was pressed flat."""
        if role not in DRUMS or self._song is None:
            return None
        flat = _beyond(self._song.flat_dynamics_index, self._preset["mix.flat_tolerance"])
        lift = self._amount * flat * self._preset["mix.attack_db"]
        if lift < 0.25:
            return None
        self.notes.append(f"{name}: dynamics are flat ({flat:.2f}); onsets are lifted by up to {lift:.1f} dB.")
        return Processor("transients", TransientShaper(attack_db=lift))

    def _width(self, name: str, role: str, measured: Analysis) -> Processor | None:
        """Sides of a single strip that are louder than the middle; low strips go to the middle."""
        p = self._preset
        ratio = measured.mid_side_ratio_db
        mono_below = p["mix.mono_below_hertz"] if role in LOW and self._song is None and measured.channels > 1 else 0.0
        if ratio is None or measured.channels < 2:
            return None
        # Separated stems are narrowed as a song, on the mix: there only what is extreme even for one part counts.
        limit = p["mix.width_limit_db"] if self._song is None else 0.0
        narrow = 10.0 ** (-self._amount * max(0.0, ratio - limit) / 20.0)
        side_gain = min(narrow, self._width_cap)
        if side_gain > 0.99 and not mono_below:
            return None
        self.notes.append(f"{name}: side is at {ratio:+.1f} dB against mid; it is scaled by {side_gain:.2f}.")
        return Processor("width", StereoWidth(side_gain=side_gain, mono_below_hertz=mono_below))

    def interplay(self, strips: Sequence[Strip], levels: Mapping[str, Levels]) -> tuple[Strip, ...]:
        """The strips with what they do to one another."""
        between = Interplay(self._preset, self._amount, separated=self._song is not None)
        found = between.strips(strips, self._analyses, levels)
        self.notes += between.notes
        return tuple(
            dataclasses.replace(strip, chain=tuple(self._slot(processor) for processor in strip.chain))
            for strip in found
        )

    # --- the mix ----------------------------------------------------------------------------------------------------

    def master_chain(self) -> tuple[Processor, ...]:
        """What only the whole song can tell; empty for supplied stems."""
        if self._song is None:
            return ()
        chain = (self._expander(self._song), self._stereo_field(self._song), self._air(self._song))
        return tuple(self._slot(processor) for processor in chain if processor is not None)

    def _stereo_field(self, song: Analysis) -> Processor | None:
        """Bands of a too wide song are narrowed, bands that lean to an edge are brought back."""
        p = self._preset
        narrowing = self._amount * self._too_wide(song)
        moving = (
            self._amount
            * p["mix.recentre"]
            * min(1.0, 3.0 * _beyond(song.hard_panning_index, p["mix.panning_tolerance"]))
        )
        bands = []
        for band in song.stereo_bands:
            recentre = moving * math.copysign(max(0.0, abs(band.lean) - p["mix.lean_tolerance"]), band.lean)
            # What is left of the side once the leaning part is out of it: sum |S - a M|^2 over sum |M|^2.
            ratio = max(10.0 ** (band.mid_side_ratio_db / 10.0) - 2.0 * recentre * band.lean + recentre**2, 1e-6)
            over = max(0.0, 10.0 * math.log10(ratio) - p["mix.width_limit_db"])
            side_gain = min(10.0 ** (-narrowing * over / 20.0), self._width_cap)
            if side_gain < 0.99 or abs(recentre) > 0.01:
                bands.append(StereoFieldBand(band.low_hertz, band.high_hertz, side_gain, recentre))
        if not bands:
            return None
        moved = sum(1 for band in bands if abs(band.recentre) > 0.01)
        self.notes.append(f"Sides: {len(bands)} bands are corrected, {moved} of them brought back from an edge.")
        return Processor("stereo_field", StereoField(tuple(bands)))

    def _too_wide(self, song: Analysis) -> float:
        """0 for a song as wide as records are, 1 from 1.5 dB beyond."""
        p = self._preset
        if song.mid_side_ratio_db is None or not song.stereo_bands:
            return 0.0
        mean_db = sum(band.mid_side_ratio_db for band in song.stereo_bands) / len(song.stereo_bands)
        beyond = max(mean_db - p["mix.width_gate_db"], song.mid_side_ratio_db - p["mix.width_sum_limit_db"])
        return min(max(beyond / _FULL_WIDTH_EXCESS_DB, 0.0), 1.0)

    def _expander(self, song: Analysis) -> Processor | None:
        """Upward expansion of a song that was pressed flat: the inverse of what flattened it, held within limits."""
        p = self._preset
        if song.rms_dbfs is None or song.crest_factor_db is None:
            return None
        lacking = min(max((p["mix.crest_target_db"] - song.crest_factor_db) / _FULL_CREST_LACK_DB, 0.0), 1.0)
        pressed = self._amount * max(lacking, _beyond(song.flat_dynamics_index, p["mix.flat_tolerance"]))
        ratio = 1.0 - pressed * (1.0 - p["mix.expansion_ratio"])
        if ratio > 0.98:
            return None
        self.notes.append(f"Peaks stand only {song.crest_factor_db:.1f} dB out: expanded by 1:{1 / ratio:.2f}.")
        return Processor(
            "expander",
            Compressor(
                threshold_db=song.rms_dbfs - 6.0,
                ratio=ratio,
                attack_ms=15.0,
                release_ms=60.0,
                lookahead_ms=10.0,
                knee_db=6.0,
                range_db=p["mix.expansion_range_db"],
            ),
        )

    def _air(self, song: Analysis) -> Processor | None:
        """New top for a song whose spectrum ends where no recording ends."""
        p = self._preset
        cutoffs = [a.bandwidth_hertz for a in self._analyses.values() if a.bandwidth_hertz is not None]
        cutoff = max([song.bandwidth_hertz or 0.0, *cutoffs])
        if (
            not 8_000.0 <= cutoff < p["mix.air_below_hertz"]
            or cutoff > 0.45 * song.sample_rate_hertz
            or not self._amount
        ):
            return None
        self.notes.append(f"The spectrum ends at {cutoff:.0f} Hz: its top is copied from the band below.")
        return Processor(
            "air",
            BandExtender(
                cutoff_hertz=cutoff,
                gain_db=p["mix.air_gain_db"] + 20.0 * math.log10(max(self._amount, 0.1)),
                slope_db_per_octave=p["mix.air_slope_db_per_octave"],
            ),
        )
