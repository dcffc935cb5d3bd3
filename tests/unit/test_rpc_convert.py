"""Dataclasses to messages and back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboard.errors import InvalidInput
from outboard.rpc.convert import enum_name, enum_names, enum_number, from_message, to_message, unmatched_fields
from outboard.v1 import analysis_pb2, audio_pb2, mixer_service_pb2, processor_pb2, separator_service_pb2


@dataclass(frozen=True)
class FilterBand:
    shape: str
    frequency_hertz: float
    gain_db: float = 0.0
    q: float = 0.7
    order: int = 2


@dataclass(frozen=True)
class Equalizer:
    bands: tuple[FilterBand, ...] = ()


@dataclass(frozen=True)
class StereoWidth:
    side_gain: float = 1.0
    mono_below_hertz: float = 0.0
    balance: float = 0.0


@dataclass(frozen=True)
class Processor:
    label: str
    kind: Equalizer | StereoWidth
    bypass: bool = False


@dataclass(frozen=True)
class Preset:
    name: str = "plain"
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    engine: str = ""
    stem_count: int | None = None
    overlap: float | None = None
    shifts: int = 7
    seed: int | None = None
    residual: str = "fold"
    speed: str | None = None


_NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(
    bands=st.lists(
        st.builds(
            FilterBand,
            shape=st.sampled_from(["peak", "low_shelf", "notch"]),
            frequency_hertz=_NUMBERS,
            gain_db=_NUMBERS,
            order=st.integers(-(2**31), 2**31 - 1),
        )
    ),
    label=st.text(),
    bypass=st.booleans(),
)
def test_nested_dataclasses_survive_the_way_there_and_back(bands: list[FilterBand], label: str, bypass: bool) -> None:
    """Nested, repeated, enum and oneof fields come back as they went."""
    before = Processor(label, Equalizer(tuple(bands)), bypass)
    message = to_message(before, processor_pb2.Processor)
    assert message.WhichOneof("kind") == "equalizer"
    assert from_message(message, Processor) == before


def test_a_oneof_member_is_chosen_by_the_class_s_name() -> None:
    """Each class of the union is the member whose message has its name, even when all its numbers are zero."""
    message = to_message(Processor("width", StereoWidth(0.0)), processor_pb2.Processor)
    assert message.WhichOneof("kind") == "stereo_width"
    assert from_message(message, Processor).kind == StereoWidth(0.0)


def test_zero_is_not_unset() -> None:
    """0 means 0 and unset means the default, on both sides."""
    zero = Settings(stem_count=0, overlap=0.0, shifts=0, seed=0)
    message = to_message(zero, separator_service_pb2.SeparationSettings)
    assert message.HasField("overlap")
    assert from_message(message, Settings) == zero
    unset = from_message(separator_service_pb2.SeparationSettings(), Settings)
    assert unset == Settings(shifts=7)


def test_maps_become_dictionaries_and_an_empty_string_the_default() -> None:
    """A map keeps its values; a string without presence that is empty says nothing."""
    message = mixer_service_pb2.Preset(values={"b": 2.0, "a": 1.0})
    assert from_message(message, Preset) == Preset("plain", {"a": 1.0, "b": 2.0})
    assert to_message(Preset("x", {"a": 1.0}), mixer_service_pb2.Preset).values == {"a": 1.0}


def test_numpy_scalars_are_taken() -> None:
    """Figures computed by NumPy go onto the wire."""

    @dataclass(frozen=True)
    class SongFacts:
        mean: float | None = None

    message = to_message(SongFacts(np.float32(0.5)), analysis_pb2.SongFacts)  # type: ignore[arg-type]
    assert message.mean == 0.5


def test_an_unknown_enum_number_is_refused_with_its_field() -> None:
    """A newer client's value is an error that names the field and what is known."""
    message = separator_service_pb2.SeparationSettings(residual=99)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="unknown value 99; known are fold, raw") as caught:
        from_message(message, Settings, "config.settings.")
    assert caught.value.violations[0].field == "config.settings.residual"


def test_an_unknown_enum_name_is_refused_with_its_field() -> None:
    """The same on the way out."""
    with pytest.raises(InvalidInput) as caught:
        to_message(replace(Settings(), residual="burn"), separator_service_pb2.SeparationSettings)
    assert caught.value.violations[0].field == "residual"


def test_a_number_that_does_not_fit_is_refused_with_its_field() -> None:
    """int32 overflow is bad input, not a crash."""
    with pytest.raises(InvalidInput) as caught:
        to_message(Settings(stem_count=2**40), separator_service_pb2.SeparationSettings)
    assert caught.value.violations[0].field == "stem_count"


def test_a_missing_required_field_is_refused_by_its_full_path() -> None:
    """Deep inside a repeated field, too."""
    message = processor_pb2.Processor(label="x", equalizer=processor_pb2.Equalizer(bands=[processor_pb2.FilterBand()]))
    with pytest.raises(InvalidInput) as caught:
        from_message(message, Processor, "plan.")
    assert caught.value.violations[0].field == "plan.equalizer.bands[0].shape"
    with pytest.raises(InvalidInput, match="kind must be set"):
        from_message(processor_pb2.Processor(label="x"), Processor)


def test_what_the_domain_cannot_do_is_refused_and_not_left_out() -> None:
    """A set field without a counterpart, and a oneof member that the union lacks."""

    @dataclass(frozen=True)
    class Less:
        engine: str = ""

    with pytest.raises(InvalidInput, match="overlap is not supported here"):
        from_message(separator_service_pb2.SeparationSettings(overlap=0.5), Less)
    with pytest.raises(InvalidInput, match="chorus is not supported here"):
        from_message(processor_pb2.Processor(label="x", chorus=processor_pb2.Chorus()), Processor)


def test_enum_names_lose_their_prefix() -> None:
    """ROLE_LEAD_VOCAL is lead_vocal, there and back; UNSPECIFIED is not offered."""
    role = audio_pb2.Role.DESCRIPTOR
    assert enum_name(role, audio_pb2.ROLE_LEAD_VOCAL, "role") == "lead_vocal"
    assert enum_number(role, "lead_vocal", "role") == audio_pb2.ROLE_LEAD_VOCAL
    assert "unspecified" not in enum_names(role)


def test_differences_are_named_on_both_sides() -> None:
    """The conformance check sees a field too many and a field too few."""

    @dataclass(frozen=True)
    class SongFacts:
        mean: float | None = None
        colour: str = ""

    differences = unmatched_fields(SongFacts, analysis_pb2.SongFacts.DESCRIPTOR)
    assert "SongFacts.colour is not in outboard.v1.SongFacts" in differences
    assert "outboard.v1.SongFacts.deviation is not in SongFacts" in differences
