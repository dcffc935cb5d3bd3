"""Every number that a sound profile may set: its unit, its range, its meaning. `balanced.toml` gives each its value.

Keys are dotted like the tables of the TOML files. The console reads `mix.*`, the master reads `master.*`.
"""

from __future__ import annotations

from dataclasses import dataclass

ROLES = (
    "kick", "snare", "hats", "drums", "bass", "lead_vocal", "backing_vocal",
    "keys", "guitar", "synth", "pad", "fx", "other",
)  # fmt: skip


@dataclass(frozen=True)
class Key:
    """What a number means and where it may lie (both ends included)."""

    unit: str
    low: float
    high: float
    meaning: str


_MIX = {
    "mix.working_level_lufs": Key("LUFS", -30, -12, "loudness to which the lead of supplied stems is staged"),
    "mix.balance_tolerance_db": Key("dB", 0, 20, "how far a separated stem may be from its role's level untouched"),
    "mix.mud_tolerance": Key("index", 0, 1, "mud index up to which the low middle is left alone"),
    "mix.mud_cut_db": Key("dB", 0, 3, "deepest cut of the low middle, at full mud"),
    "mix.mud_hertz": Key("Hz", 150, 600, "centre of the low-middle cut"),
    "mix.mud_q": Key("", 0.3, 4, "quality factor of the low-middle cut"),
    "mix.width_gate_db": Key("dB", -20, 3, "side over mid, mean of the bands, from which a song is too wide"),
    "mix.width_sum_limit_db": Key("dB", -20, 3, "side over mid of the whole from which a song is too wide"),
    "mix.width_limit_db": Key("dB", -20, 3, "side over mid to which a band of a too wide song is narrowed at most"),
    "mix.panning_tolerance": Key("index", 0, 1, "hard-panning index up to which no band is moved"),
    "mix.lean_tolerance": Key("", 0, 1, "share of the mid that a band may lean to one edge"),
    "mix.recentre": Key("", 0, 1, "how much of a lean beyond the tolerance is taken out"),
    "mix.mono_below_hertz": Key("Hz", 0, 200, "below this kick and bass are mono"),
    "mix.flat_tolerance": Key("index", 0, 1, "flat-dynamics index up to which nothing is expanded"),
    "mix.crest_target_db": Key("dB", 6, 20, "crest factor under which a song counts as pressed"),
    "mix.expansion_ratio": Key(":1", 0.5, 1, "upward expansion of the mix at full flatness; 1 is none"),
    "mix.expansion_range_db": Key("dB", 0, 6, "furthest gain of the expansion"),
    "mix.attack_db": Key("dB", 0, 6, "lift of drum onsets at full flatness"),
    "mix.air_below_hertz": Key("Hz", 8000, 20000, "a spectrum that ends below this is extended"),
    "mix.air_gain_db": Key("dB", -24, 6, "level of the extension against what it is copied from"),
    "mix.air_slope_db_per_octave": Key("dB/oct", -48, 0, "fall of the extension with frequency"),
}
_STRIPS = {
    "mix.vocals.high_pass_hertz": Key("Hz", 20, 300, "corner of the voices' high-pass"),
    "mix.vocals.presence_hertz": Key("Hz", 2000, 8000, "centre of the voices' presence"),
    "mix.vocals.presence_db": Key("dB", 0, 4, "most presence that a dull voice is given"),
    "mix.vocals.presence_tolerance_db": Key("dB", 0, 20, "how dull a voice may be without being helped"),
    "mix.other.high_pass_hertz": Key("Hz", 20, 300, "corner of the high-pass of instruments that are not low"),
    "mix.drums.crest_db": Key("dB", 6, 30, "crest factor of drums above which they are compressed"),
    "mix.drums.ratio": Key(":1", 1, 8, "compression of drums"),
    "mix.drums.attack_ms": Key("ms", 0.1, 100, "attack of the drum compressor"),
    "mix.drums.release_ms": Key("ms", 10, 1000, "release of the drum compressor"),
}
_BETWEEN_STRIPS = {
    "mix.masking.tolerance": Key("index", 0, 1, "share of the voices that the music may cover before it gives way"),
    "mix.masking.cut_db": Key(
        "dB", 0, 4, "furthest that a strip gives way in a band of hearing while it covers voices there"
    ),
    "mix.sidechain.kick_bass_db": Key("dB", 0, 6, "furthest that the bass gives way at 40 to 120 Hz under the kick"),
    "mix.sidechain.lead_music_db": Key("dB", 0, 1.5, "how far music steps back while the lead sings; 0: not at all"),
}
_SENDING = tuple(role for role in ROLES if role not in ("kick", "bass"))  # those stay where they are
_SPACE = {
    **{
        f"mix.send.{role}_db": Key("dB", -60, 0, f"what {role.replace('_', ' ')} sends to the reverb; -60: nothing")
        for role in _SENDING
    },
    "mix.send.lead_delay_db": Key("dB", -60, 0, "what the lead vocal sends to the delay; -60: nothing"),
    "mix.send.separated_db": Key("dB", -40, 0, "how much less separated stems send; only dry ones do"),
    "mix.space.kind": Key("", 0, 3, "the reverb: 0 plate, 1 room, 2 chamber, 3 hall"),
    "mix.space.decay_seconds": Key("s", 0.1, 10, "time in which the reverb falls by 60 dB"),
    "mix.space.predelay_ms": Key("ms", 0, 200, "silence before its first reflection"),
    "mix.space.damping_hertz": Key("Hz", 1000, 20000, "where it decays in half the time"),
    "mix.space.low_cut_hertz": Key("Hz", 20, 1000, "corner of the high-pass before it"),
    "mix.space.dry_below_seconds": Key("s", 0, 2, "a sound whose tails are shorter has no room of its own"),
    "mix.delay.beats": Key("beats", 0.125, 2, "time between echoes"),
    "mix.delay.feedback": Key("", 0, 0.8, "level of each echo against the one before"),
    "mix.delay.damping_hertz": Key("Hz", 500, 20000, "corner of the low-pass in the echo's loop"),
}
_COLOUR = {
    "mix.sibilance.tolerance_db": Key("dB", -40, 0, "sibilants against the voice, above which they are turned down"),
    "mix.sibilance.cut_db": Key("dB", 0, 4, "furthest that sibilants are turned down"),
    "mix.saturation.drive_db": Key("dB", 0, 18, "how far into the curve a strip's peaks reach"),
    "mix.saturation.drums_mix": Key("", 0, 1, "share of saturation on drums; 0: none"),
    "mix.saturation.bass_mix": Key("", 0, 1, "share of saturation on the bass; 0: none"),
    "mix.saturation.vocals_mix": Key("", 0, 1, "share of saturation on voices; 0: none"),
    "mix.saturation.music_mix": Key("", 0, 1, "share of saturation on all other strips; 0: none"),
}
_BUSES = {
    "mix.bus.lively_db": Key("dB", 0, 30, "loud over ordinary moments, up to which a bus is held together enough"),
    "mix.bus.drum_glue_db": Key("dB", 0, 2.5, "average reduction of lively drums; 0: none"),
    "mix.bus.drum_crest_db": Key("dB", 6, 30, "crest factor of drums up to which their onsets are lifted"),
    "mix.bus.drum_attack_db": Key("dB", 0, 4, "furthest lift of those onsets"),
    "mix.bus.drum_crush_mix": Key("", 0, 0.4, "share of hard compression beside lively drums; 0: none"),
    "mix.bus.low_mid_share_db": Key("dB", -15, 0, "target of 200 to 350 Hz within the music above 150 Hz"),
    "mix.bus.low_mid_limit_db": Key("dB", 0, 4, "furthest gain there"),
    "mix.bus.air_share_db": Key("dB", -60, 0, "power above 8 kHz in the music, under which it is lifted"),
    "mix.bus.air_limit_db": Key("dB", 0, 4, "furthest lift there"),
    "mix.bus.vocal_range_db": Key("dB", 0, 30, "loud over ordinary words, up to which voices are even enough"),
    "mix.bus.vocal_parallel_mix": Key("", 0, 0.5, "share of compression beside uneven voices; 0: none"),
    "mix.bus.vocal_presence_db": Key("dB", 0, 4, "shelf for voices that are covered around 4 kHz"),
    "mix.bus.mix_glue_db": Key("dB", 0, 2.5, "average reduction of a lively mix of supplied stems; 0: none"),
    "mix.sections.range_db": Key("dB", 0, 3, "furthest that a fader moves from section to section; 0: not at all"),
    "mix.sections.tolerance_db": Key("dB", 0, 20, "how far off its place a part may be in a section untouched"),
}
_LEVELS = {
    f"mix.level.{role}_db": Key("dB", -30, 12, f"loudness of {role.replace('_', ' ')} against the lead vocal")
    for role in ROLES
}
_MASTER = {
    "master.tolerance_db": Key("dB", 0, 20, "deviation of the smoothed spectrum from its target that is taste"),
    "master.correction": Key("", 0, 1, "share of a deviation beyond the tolerance that is taken back"),
    "master.equalizer_limit_db": Key("dB", 0, 4, "furthest gain of the equaliser"),
    "master.sub_boost_limit_db": Key("dB", 0, 4, "furthest lift below 60 Hz"),
    "master.air_boost_limit_db": Key("dB", 0, 4, "furthest lift above 6 kHz"),
    "master.target_sub_db": Key("dB", -12, 12, "what the spectrum has more than the common target around 35 Hz"),
    "master.target_low_db": Key("dB", -12, 12, "the same around 110 Hz"),
    "master.target_low_mid_db": Key("dB", -12, 12, "the same around 316 Hz"),
    "master.target_mid_db": Key("dB", -12, 12, "the same around 1 kHz"),
    "master.target_presence_db": Key("dB", -12, 12, "the same around 3.5 kHz"),
    "master.target_air_db": Key("dB", -12, 12, "the same around 9.8 kHz"),
    "master.mud_cut_db": Key("dB", 0, 4, "cut of the low middle at full mud"),
    "master.shimmer_cut_db": Key("dB", 0, 4, "cut around 9.8 kHz at full shimmer"),
    "master.harsh_cut_db": Key("dB", 0, 4, "furthest cut of 3 to 6 kHz at its moments"),
    "master.index_tolerance": Key("index", 0, 1, "pathology index up to which nothing is cut"),
    "master.compressor_ratio": Key(":1", 1, 4, "ratio of the gentle multiband compression; 1: none"),
    "master.lively_crest_db": Key("dB", 6, 30, "crest factor from which there are dynamics to spend"),
    "master.lively_range_lu": Key("LU", 0, 30, "loudness range above which a song is evened out a little"),
    "master.parallel_mix": Key("", 0, 0.5, "share of a heavily compressed copy; 0: none"),
    "master.punch_attack_db": Key("dB", 0, 9, "furthest lift of onsets above 800 Hz in loud masters"),
    "master.punch_sustain_db": Key("dB", -6, 0, "furthest fall of what rings above 800 Hz in loud masters"),
    "master.saturation_mix": Key("", 0, 1, "share of saturation above the bass in loud masters; 0: none"),
    "master.mono_below_hertz": Key("Hz", 0, 200, "below this a stereo song is mono"),
    "master.side_limit_db": Key("dB", -20, 6, "side over mid from which a song is narrowed"),
}
KEYS: dict[str, Key] = {**_MIX, **_STRIPS, **_BETWEEN_STRIPS, **_SPACE, **_COLOUR, **_BUSES, **_LEVELS, **_MASTER}
