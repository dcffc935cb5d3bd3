"""The console as data: settings asked for, the plan that holds every number, and the report. No decisions, no sound.

Class and field names are those of ``mixer_service.proto``, so that plans and reports cross the wire unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from outboard.audio.processors import Processor, ProcessorReport
from outboard.audio.reporting import EngineInfo, Warning
from outboard.audio.stereo import PanLaw

INSERT = "insert"
"""Label of a plugin's slot that the planner does not have: at the end of a chain, without a stand-in."""
CONSOLE, PASSTHROUGH = "console", "passthrough"
# The preferred first. A version is raised whenever the engine's sound changes.
ENGINES = (
    EngineInfo(CONSOLE, 8, description="A strip per stem, buses and sends; numbers from a preset and measurements."),
    EngineInfo(PASSTHROUGH, 1, description="The plain sum of the stems."),
)


@dataclass(frozen=True)
class MixSettings:
    """How to mix; None leaves the decision to the planner.

    Attributes:
        engine: ``console``, or ``passthrough`` for the plain sum; empty is ``console``.
        respect_user_gains: keep the stems' levels as they are. None: separated stems stay within 3 dB, supplied
            stems are balanced from scratch.
        bypass: labels of processors to leave out.
        bypass_all: all processors and gains out: the mix is the sum of its stems.
        width_cap: highest factor on any side signal, 0 to 1.4.
        peak_target_dbfs: highest sample of the mix; None takes -6.
        intensity: how much of the whole treatment, 0 to 100; None takes 100.
    """

    engine: str = ""
    respect_user_gains: bool | None = None
    bypass: tuple[str, ...] = ()
    bypass_all: bool = False
    width_cap: float | None = None
    peak_target_dbfs: float | None = None
    intensity: float | None = None


def engine_info(name: str) -> EngineInfo:
    """The engine of that name; an empty one is the preferred."""
    return next(engine for engine in ENGINES if engine.name == (name or CONSOLE))


@dataclass(frozen=True)
class EnvelopePoint:
    """A point of a gain envelope: position in frames, gain in dB."""

    frame: int
    gain_db: float


@dataclass(frozen=True)
class Send:
    """A copy of a strip, after its fader, to a bus at ``level_db``."""

    bus: str
    level_db: float


@dataclass(frozen=True)
class Strip:
    """One stem's channel.

    Attributes:
        stem: the stem's name.
        role: what it plays.
        gain_db: fader.
        pan: -1 left to 1 right.
        pan_law: how it gets there, see `outboard.audio.stereo.pan_gains`.
        polarity_inverted: whether its polarity is turned.
        chain: processors in order, before the fader.
        sends: copies to effect buses, after the fader.
        bus: where it goes; empty is the mix.
        envelope: gain over time on top of the fader, straight lines in dB between the points; none: constant.
        role_confidence: how sure the role is, 0 to 1; 1 where it was given, None where nobody listened.
    """

    stem: str
    role: str
    gain_db: float = 0.0
    pan: float = 0.0
    polarity_inverted: bool = False
    chain: tuple[Processor, ...] = ()
    sends: tuple[Send, ...] = ()
    bus: str = ""
    envelope: tuple[EnvelopePoint, ...] = ()
    role_confidence: float | None = None
    pan_law: PanLaw = "balance"


@dataclass(frozen=True)
class Bus:
    """A sum of strips or a shared effect; it goes to the mix."""

    name: str
    gain_db: float = 0.0
    chain: tuple[Processor, ...] = ()


@dataclass(frozen=True)
class MixPlan:
    """All numbers of a mix.

    Attributes:
        strips: one per stem.
        buses: sums of strips.
        master_chain: processors of the stereo sum.
        trim_db: gain of the sum, after the chain.
        notes: why things are as they are, a sentence each.
        peak_target_dbfs: the finished mix is turned down to this highest sample; None: left as it is.
    """

    strips: tuple[Strip, ...]
    buses: tuple[Bus, ...] = ()
    master_chain: tuple[Processor, ...] = ()
    trim_db: float = 0.0
    notes: tuple[str, ...] = ()
    peak_target_dbfs: float | None = None


@dataclass(frozen=True)
class StripReport:
    """What one strip or bus did; ``role`` is empty for buses, and what cannot be measured is None."""

    name: str
    gain_db: float
    role: str = ""
    processors: tuple[ProcessorReport, ...] = ()
    mid_side_ratio_before_db: float | None = None
    mid_side_ratio_after_db: float | None = None
    integrated_before_lufs: float | None = None
    integrated_after_lufs: float | None = None
    masking_before_index: float | None = None
    masking_after_index: float | None = None
    spectrum_before_db: tuple[float, ...] = ()
    spectrum_after_db: tuple[float, ...] = ()
    correlation: float | None = None


@dataclass(frozen=True)
class MaskingPair:
    """How far one strip alone covers another, before and after the strips' processors, 0 to 1."""

    masker: str
    masked: str
    before_index: float
    after_index: float


@dataclass(frozen=True)
class GuardRail:
    """One guard-rail: what was measured on the result, its limit, whether it holds, and the corrections it took."""

    name: str
    value: float
    limit: float
    unit: str = ""
    held: bool = True
    rounds: int = 0


@dataclass(frozen=True)
class PluginRun:
    """A plugin that was asked for: its version and the SHA-256 of its binary, and why it did not run, if it did not."""

    name: str
    version: str = ""
    digest: str = ""
    reason: str = ""


@dataclass(frozen=True)
class MixReport:
    """What the console did.

    Attributes:
        engine: which engine ran.
        plan: the plan that was rendered.
        strips: what each strip did, in the plan's order.
        buses: what each bus did, the mix last.
        frames: length.
        sample_peak_dbfs: highest sample of the mix; None for silence.
        trim_db: gain of the finished mix, the plan's and what met the peak target.
        correlation: of left and right of the mix; None for silence.
        warnings: what a person should know.
        plugins: those that were asked for, by name.
        rails: every guard-rail that could be judged; none for the plain sum of the stems.
        masking: how strips cover one another, every pair.
        band_hertz: centres of the auditory bands that spectra are given in.
        as_given: whether the plan came with the request: it was rendered as it is, what it misses is told.
    """

    engine: EngineInfo
    plan: MixPlan
    strips: tuple[StripReport, ...]
    buses: tuple[StripReport, ...]
    frames: int
    sample_peak_dbfs: float | None = None
    trim_db: float = 0.0
    correlation: float | None = None
    warnings: tuple[Warning, ...] = field(default=())
    plugins: tuple[PluginRun, ...] = ()
    rails: tuple[GuardRail, ...] = ()
    masking: tuple[MaskingPair, ...] = ()
    band_hertz: tuple[float, ...] = ()
    as_given: bool = False
