"""Plugins in sound profiles: how files name them, where they go on the console, and the ready mappings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from outboard import presets
from outboard.audio.dynamic_eq import DynamicBandSettings
from outboard.audio.plugins.facts import PluginChoice, PluginFacts, PluginParameter
from outboard.audio.plugins.host import PluginHost, PluginLimits
from outboard.audio.plugins.mappings import Unmapped, mapped
from outboard.audio.plugins.rack import PluginRack
from outboard.audio.processors import (
    Compressor,
    Delay,
    DynamicEqualizer,
    Equalizer,
    FilterBand,
    Plugin,
    Processor,
    ProcessorKind,
    Reverb,
)
from outboard.errors import InvalidInput
from services.mixer.buses import BUSES
from services.mixer.check import MOST_PLUGINS
from services.mixer.console import Bus, MixPlan, Strip
from services.mixer.inserts import Inserts
from services.mixer.plan import LABELS
from tests.plugins import zam_folder

NATIVE = Compressor(-30.0, 4.0)


@pytest.fixture(scope="module")
def host() -> Iterator[PluginHost]:
    made = PluginHost((zam_folder(),), PluginLimits(warm_processes=0))
    yield made
    made.close()


@pytest.fixture
def rack(host: PluginHost) -> PluginRack:
    return PluginRack(host)


def write(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def plan() -> MixPlan:
    """A compressor on every strip, the drum bus and the mix."""
    chain = (Processor("compressor", NATIVE),)
    strips = (
        Strip("beat", "drums", chain=chain, bus="drums"),
        Strip("voice", "lead_vocal", chain=(*chain, Processor("masking", Compressor(-30.0, 2.0, sidechain="beat")))),
    )
    return MixPlan(strips, (Bus("drums", chain=chain), Bus("vocals")), master_chain=chain)


def given(plugins: dict[str, PluginChoice], rack: PluginRack) -> MixPlan:
    return Inserts(plugins, rack, LABELS, BUSES).into(plan())


def ran(chain: tuple[Processor, ...]) -> list[str]:
    return [slot.kind.name if isinstance(slot.kind, Plugin) else "native" for slot in chain]


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_file_gives_slots_to_plugins_and_inherits_them(tmp_path: Path) -> None:
    """Numbers and words by name; a child's slot takes the parent's place as a whole, an empty name takes it out."""
    write(
        tmp_path,
        "parent",
        '[plugins.compressor]\nname = "ZamCompX2"\nparameters = { threshold_db = -20, current_program = "Zero" }\n'
        '[plugins.mix.insert]\nname = "ZaMaximX2"\n[plugins.drums.transients]\nname = "Some"\n',
    )
    child = write(
        tmp_path,
        "child",
        'extends = "parent.toml"\n[plugins.drums.transients]\nname = ""\n[plugins.mix.insert]\nname = "ZamEQ2"\n',
    )
    found = presets.load(child).plugins
    assert found["compressor"] == PluginChoice("ZamCompX2", {"threshold_db": -20.0}, {"current_program": "Zero"})
    assert found["mix.insert"] == PluginChoice("ZamEQ2")
    assert found["drums.transients"].name == ""
    assert presets.load("balanced").plugins == {}, "no profile of ours needs a plugin"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plugins = 3", "must be a table"),
        ("[plugins]\ncompressor = 3", "must be a table with a name"),
        ("[plugins.compressor]\nname = 3", "must be a table with a name"),
        ('[plugins.compressor]\nname = "X"\nparametres = {}', "not 'parametres'"),
        ('[plugins.compressor]\nname = "X"\nparameters = 3', "has the keys name and parameters"),
        ('[plugins.compressor]\nname = "X"\nparameters = { a = [1] }', "must be a number or a word"),
        ('[plugins.compressor]\nname = "X"\nparameters = { a = nan }', "must be a finite number"),
        ('[plugins.compressor]\nname = "../X"', "a path is no name"),
        ('[plugins.compressor]\nname = "/usr/lib/vst3/X.vst3"', "a path is no name"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    """PRESET_INVALID, with what is allowed; a path is refused like any other wrong name."""
    with pytest.raises(InvalidInput, match=told) as raised:
        presets.load(write(tmp_path, "own", text))
    assert raised.value.reason == "PRESET_INVALID"


def test_a_preset_has_not_any_number_of_plugins() -> None:
    """What comes over the wire is checked like a file."""
    with pytest.raises(InvalidInput, match="a path is no name"):
        presets.with_values("", {}, plugins={"compressor": PluginChoice("a/b")})
    with pytest.raises(InvalidInput, match="at most 64 plugins"):
        presets.with_values("", {}, plugins={str(index): PluginChoice("X") for index in range(65)})


# --- slots ----------------------------------------------------------------------------------------------------------


def test_a_label_takes_every_slot_of_it(rack: PluginRack) -> None:
    """On strips, buses and the mix; what the planner decided becomes the stand-in, parameters are the preset's."""
    made = given({"compressor": PluginChoice("ZamCompX2", {"ratio": 3.0})}, rack)
    chains = [part.chain for part in (*made.strips, *made.buses)]
    assert [ran(chain) for chain in (*chains, made.master_chain)] == [
        ["ZamCompX2"], ["ZamCompX2", "native"], ["ZamCompX2"], [], ["ZamCompX2"],
    ]  # fmt: skip
    kind = made.strips[0].chain[0].kind
    assert isinstance(kind, Plugin)
    assert kind.stand_in == Processor("compressor", NATIVE)
    assert kind.parameters == {"ratio": 3.0}
    assert "beat: ZamCompX2 has the slot of the native compressor (compressor)." in made.notes


def test_a_place_goes_before_a_label_and_an_insert_has_a_slot_of_its_own(rack: PluginRack) -> None:
    """By role, by bus and on the mix; an empty name leaves the native processor."""
    made = given(
        {
            "compressor": PluginChoice("ZamCompX2"),
            "drums.compressor": PluginChoice("ZamComp"),
            "drums_bus.compressor": PluginChoice(""),
            "vocals_bus.insert": PluginChoice("ZamEQ2"),
            "mix.insert": PluginChoice("ZaMaximX2"),
        },
        rack,
    )
    assert [ran(strip.chain) for strip in made.strips] == [["ZamComp"], ["ZamCompX2", "native"]]
    assert [ran(bus.chain) for bus in made.buses] == [["ZamCompX2"], ["ZamEQ2"]]
    assert ran(made.master_chain) == ["ZamCompX2", "ZaMaximX2"]


@pytest.mark.parametrize(
    ("slot", "told"),
    [
        ("compresor", "did you mean 'compressor'?"),
        ("drum.compressor", "did you mean 'drums'?"),
        ("insert", "an insert needs its place"),
        ("masking", "follows another strip"),
        ("kick_sidechain", "follows another strip"),
    ],
)
def test_a_slot_that_there_is_not_is_told(rack: PluginRack, slot: str, told: str) -> None:
    """The nearest label or place, with the slot's name in the field."""
    with pytest.raises(InvalidInput) as raised:
        given({slot: PluginChoice("ZamCompX2")}, rack)
    assert raised.value.reason == "PRESET_INVALID"
    assert raised.value.violations[0].field == f"preset.plugins[{slot}]"
    assert told in raised.value.violations[0].description


def test_wrong_parameters_of_a_preset_are_told(rack: PluginRack) -> None:
    """An unknown one with the nearest name, a number with the plugin's range."""
    with pytest.raises(InvalidInput) as raised:
        given({"compressor": PluginChoice("ZamCompX2", {"treshold_db": -9.0, "ratio": 99.0})}, rack)
    fields = {violation.field: violation.description for violation in raised.value.violations}
    assert "must be 1 to 20" in fields["preset.plugins[compressor].parameters[ratio]"]
    assert "did you mean 'threshold_db'?" in fields["preset.plugins[compressor].parameters[treshold_db]"]


def test_a_mix_has_at_most_so_many_plugins(rack: PluginRack) -> None:
    """The rest stays native, and the notes say so."""
    strips = tuple(Strip(f"s{i}", "drums", chain=(Processor("compressor", NATIVE),) * 3) for i in range(12))
    made = Inserts({"compressor": PluginChoice("ZamCompX2")}, rack, LABELS, BUSES).into(MixPlan(strips))
    count = sum(name != "native" for strip in made.strips for name in ran(strip.chain))
    assert count == MOST_PLUGINS
    assert any("at most" in note for note in made.notes)


# --- mappings -------------------------------------------------------------------------------------------------------
# The three plugins cannot be had everywhere: these facts have the names that hosts show, and ranges of ours.


def facts(name: str, numbers: dict[str, tuple[float, float]], choices: dict[str, tuple[str, ...]]) -> PluginFacts:
    parameters = {key: PluginParameter(key, low, high) for key, (low, high) in numbers.items()}
    parameters |= {key: PluginParameter(key, choices=words) for key, words in choices.items()}
    return PluginFacts(name, "1.0", path=Path("/x"), parameters=parameters)


ROUGH_RIDER = facts(
    "RoughRider3",
    {"sensitivity_db": (0.0, 60.0), "ratio": (1.0, 1000.0), "attack_ms": (0.1, 100.0), "release_ms": (5.0, 500.0),
     "makeup_db": (0.0, 60.0), "mix": (0.0, 100.0)},
    {"full_bandwidth": ("Off", "On")},
)  # fmt: skip
SUPERMASSIVE = facts(
    "ValhallaSupermassive",
    {"mix": (0.0, 100.0), "delay_ms": (0.0, 2000.0), "delaywarp": (0.0, 100.0), "feedback": (0.0, 100.0),
     "density": (0.0, 100.0), "width": (0.0, 100.0), "lowcut": (10.0, 2000.0), "highcut": (200.0, 20000.0)},
    {},
)  # fmt: skip
NOVA_NUMBERS: dict[str, tuple[float, float]] = {}
NOVA_CHOICES: dict[str, tuple[str, ...]] = {}
for band in range(1, 5):
    NOVA_NUMBERS |= {
        f"frequency_{band}_hz": (10.0, 40_000.0), f"gain_{band}_db": (-18.0, 18.0), f"q_factor_{band}": (0.1, 6.0),
        f"threshold_{band}_db": (-80.0, 0.0), f"ratio_{band}": (1.0, 15.0), f"attack_{band}_ms": (0.1, 200.0),
        f"release_{band}_ms": (20.0, 1500.0),
    }  # fmt: skip
    NOVA_CHOICES |= {
        f"band_{band}_active": ("Off", "On"), f"band_{band}_dynactive": ("Off", "On"),
        f"band_{band}_type": ("Low Shelf", "Bell", "High Shelf"),
    }  # fmt: skip
NOVA = facts("TDR Nova", NOVA_NUMBERS, NOVA_CHOICES)


def test_rough_rider_takes_a_compressor() -> None:
    """In its own names and units; what it cannot do is told."""
    numbers, choices = mapped(ROUGH_RIDER, Compressor(-30.0, 4.0, attack_ms=20.0, release_ms=300.0, mix=0.5))
    assert numbers["sensitivity_db"] == 30.0
    assert (numbers["ratio"], numbers["attack_ms"], numbers["mix"]) == (4.0, 20.0, 50.0)
    assert numbers["release_ms"] == 300.0
    assert choices == {"full_bandwidth": "On"}
    with pytest.raises(Unmapped, match="RoughRider 3 is no reverb"):
        mapped(ROUGH_RIDER, Reverb())


def test_nova_takes_equalisers() -> None:
    """Static and dynamic bands, the rest off; a band that it does not have is told."""
    bands = (FilterBand("peak", 300.0, -2.0, 1.5), FilterBand("high_shelf", 9_000.0, 2.0))
    numbers, choices = mapped(NOVA, Equalizer(bands))
    assert (numbers["frequency_1_hz"], numbers["gain_1_db"], numbers["q_factor_1"]) == (300.0, -2.0, 1.5)
    assert choices["band_2_type"] == "High Shelf"
    assert (choices["band_2_active"], choices["band_3_active"]) == ("On", "Off")
    assert choices["band_1_dynactive"] == "Off"
    dynamic = DynamicEqualizer((DynamicBandSettings(6_000.0, 2.0, 3.0, -6.0, threshold_db=-40.0),))
    numbers, choices = mapped(NOVA, dynamic)
    assert (numbers["threshold_1_db"], numbers["ratio_1"], choices["band_1_dynactive"]) == (-40.0, 3.0, "On")
    for kind in (Equalizer((FilterBand("high_pass", 80.0),)), Equalizer(bands * 3), NATIVE):
        with pytest.raises(Unmapped):
            mapped(NOVA, kind)


def test_supermassive_takes_reverb_and_delay() -> None:
    """Its ring of delays loses 60 dB in the time that was asked for."""
    numbers, _ = mapped(SUPERMASSIVE, Reverb(decay_seconds=2.0, damping_hertz=5_000.0, low_cut_hertz=150.0))
    turns = 2.0 / (numbers["delay_ms"] / 1e3)
    assert (numbers["feedback"] / 100.0) ** turns == pytest.approx(1e-3)
    assert (numbers["highcut"], numbers["lowcut"], numbers["mix"]) == (5_000.0, 150.0, 100.0)
    numbers, _ = mapped(SUPERMASSIVE, Delay(375.0, 0.4))
    assert (numbers["delay_ms"], numbers["feedback"], numbers["density"]) == (375.0, 40.0, 0.0)


def renamed(known: PluginFacts, **names: tuple[str, float, float]) -> PluginFacts:
    """The facts of a plugin with some parameters under other names, with other ranges."""
    parameters = {key: one for key, one in known.parameters.items() if key not in names}
    parameters |= {name: PluginParameter(name, low, high) for name, low, high in names.values()}
    return replace(known, parameters=parameters)


def test_a_mapping_fits_units_and_scales_of_other_versions() -> None:
    """Seconds and kilohertz, a mix from 0 to 1, the type of a band under either name: the setting means the same."""
    seconds = renamed(ROUGH_RIDER, attack_ms=("attack_s", 0.0, 1.0), mix=("mix", 0.0, 1.0))
    numbers, _ = mapped(seconds, Compressor(-30.0, 4.0, attack_ms=20.0, mix=0.5))
    assert (numbers["attack_s"], numbers["mix"]) == (pytest.approx(0.02), 0.5)
    kilo = renamed(SUPERMASSIVE, highcut=("highcut_khz", 0.2, 20.0), feedback=("feedback", 0.0, 1.0))
    numbers, _ = mapped(kilo, Delay(375.0, 0.4, damping_hertz=5_000.0))
    assert (numbers["highcut_khz"], numbers["feedback"]) == (pytest.approx(5.0), 0.4)
    types = {key.replace("band_1_type", "type_1"): words for key, words in NOVA_CHOICES.items()}
    _, choices = mapped(facts("TDR Nova", NOVA_NUMBERS, types), Equalizer((FilterBand("peak", 300.0, -2.0),)))
    assert choices["type_1"] == "Bell"


@pytest.mark.parametrize(
    ("known", "kind", "told"),
    [
        (renamed(ROUGH_RIDER, sensitivity_db=("sensitivty_db", 0.0, 60.0)), NATIVE,
         "RoughRider3 1.0 has no parameter 'sensitivity'; the nearest are 'sensitivty_db'"),
        (renamed(ROUGH_RIDER, sensitivity_db=("threshold_db", -60.0, 0.0)), NATIVE, "no parameter 'sensitivity'"),
        (ROUGH_RIDER, Compressor(-30.0, 4.0, release_ms=800.0),
         "release_ms of RoughRider3 1.0 would be 800, must be 5 to 500"),
        (ROUGH_RIDER, Compressor(10.0, 4.0), "sensitivity_db of RoughRider3 1.0 would be -10, must be 0 to 60"),
        (NOVA, Equalizer((FilterBand("peak", 300.0, -20.0),)), "gain_1_db of TDR Nova 1.0 would be -20"),
        (facts("TDR Nova", NOVA_NUMBERS, NOVA_CHOICES | {"band_1_type": ("Peak", "Shelf")}),
         Equalizer((FilterBand("peak", 300.0, -2.0),)), "has no 'Bell': it is one of Peak, Shelf"),
    ],
    ids=["misspelt", "renamed", "too slow", "too high", "too deep", "other words"],
)  # fmt: skip
def test_what_a_mapping_cannot_say_is_told(known: PluginFacts, kind: ProcessorKind, told: str) -> None:
    """The nearest names, the range or the words, with the plugin's version: nothing is bent to fit."""
    with pytest.raises(Unmapped, match=re.escape(told)):
        mapped(known, kind)


def test_another_version_of_a_mapped_plugin_keeps_the_native_processor() -> None:
    """A parameter that it does not have is named, and the plan says why the native processor stays."""
    with pytest.raises(Unmapped, match="has no parameter 'sensitivity'"):
        mapped(facts("RoughRider3", {"ratio": (1.0, 9.0)}, {}), NATIVE)

    class Rack(PluginRack):
        def facts(self, name: str) -> PluginFacts:
            return facts("RoughRider3", {"ratio": (1.0, 9.0)}, {})

    inserts = Inserts({"mix.compressor": PluginChoice("RoughRider3")}, Rack(None), LABELS, BUSES)
    made = inserts.into(plan())
    assert ran(made.master_chain) == ["native"]
    told = "mix: the native compressor stays, as RoughRider3 1.0 has no parameter 'sensitivity'."
    assert told in made.notes
    assert [(warning.code, warning.message) for warning in inserts.warnings] == [("PLUGIN_UNMAPPED", told)]


def test_what_a_preset_sets_goes_over_a_mapping() -> None:
    """The mapping fills the rest; without the plugin its stand-in takes the slot with nothing mapped."""

    class Rack(PluginRack):
        def facts(self, name: str) -> PluginFacts:
            return ROUGH_RIDER

    kind = given({"compressor": PluginChoice("RoughRider3", {"ratio": 8.0})}, Rack(None)).master_chain[0].kind
    assert isinstance(kind, Plugin)
    assert (kind.parameters["ratio"], kind.parameters["sensitivity_db"]) == (8.0, 30.0)
    missing = given({"compressor": PluginChoice("RoughRider3")}, PluginRack(None)).master_chain[0].kind
    assert isinstance(missing, Plugin)
    assert missing.parameters == {}
    assert missing.stand_in == Processor("compressor", NATIVE)
