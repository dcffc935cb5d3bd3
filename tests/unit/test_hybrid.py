"""The streaming separator against upstream's `apply_model`, on a network that is cheap and remembers its place."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from demucs.apply import apply_model
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.errors import DeadlineExceeded, FailedPrecondition, Unavailable
from outboard.testing import drained
from services.separator import hybrid
from services.separator.engines import Engine, EngineInfo, SeparationReport, SeparationSettings, SongFacts
from services.separator.hybrid import LONGEST_SHIFT_FRAMES, Deployment, HybridEngine, Network
from services.separator.separate import separate
from tests.tiny_models import snr_db

SEGMENT = 4_000
RATE = 44_100
FOUR = ("drums", "bass", "other", "vocals")
SIX = (*FOUR, "guitar", "piano")
ALONE = {name: [name] for name in ("vocals", "drums", "bass")}


class Toy(torch.nn.Module):
    """Depends on every sample, on where in the window it is, and on the source; no two are alike."""

    def __init__(self, sources: tuple[str, ...] = FOUR) -> None:
        super().__init__()
        self.sources = list(sources)
        self.samplerate = RATE
        self.segment = SEGMENT / RATE
        self.audio_channels = 2

    def valid_length(self, length: int) -> int:
        return SEGMENT

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        place = torch.linspace(0.5, 1.5, mix.shape[-1])
        total = mix.sum(dim=(-1, -2), keepdim=True) / mix.shape[-1]
        return torch.stack(
            [torch.tanh(mix * (i + 1)) * place**i + total.flip(0) * 0.1 * i for i in range(len(self.sources))], dim=1
        )


class Door:
    """Inference by toys, with a record of what was asked. Where there is a list ``held``, the futures after the first
    ``holds_after`` are put there and left open.
    """

    def __init__(self, networks: Mapping[str, Toy]) -> None:
        self.networks = networks
        self.asked: list[str] = []
        self.open = 0
        self.most_open = 0
        self.fails_at: int | None = None
        self.held: list[Future[Any]] | None = None
        self.holds_after = 0

    def infer(self, model: str, inputs: Mapping[str, np.ndarray]) -> Future[Mapping[str, np.ndarray]]:
        self.asked.append(model)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        future: Future[Mapping[str, np.ndarray]] = Future()
        future.add_done_callback(lambda _: setattr(self, "open", self.open - 1))
        if self.held is not None and len(self.asked) > self.holds_after:
            self.held.append(future)
            return future
        network, number = self.networks[model], len(self.asked)
        mix = torch.from_numpy(inputs["mix"].copy())

        def answer() -> None:
            if number == self.fails_at:
                future.set_exception(Unavailable("the model is gone", reason="MODEL_SERVER_UNAVAILABLE"))
            elif future.set_running_or_notify_cancel():
                future.set_result({"stems": network(mix).numpy()})

        # Later windows are answered sooner: order must be kept all the same.
        threading.Timer(0.004 if number % 2 else 0.0, answer).start()
        return future


INFO = EngineInfo("toy", 1, stem_counts=(2, 4, 5, 6))


def engine(door: Door, networks: tuple[Network, ...] = (Network("toy", FOUR),)) -> dict[str, Engine]:
    deployment = Deployment(door.infer, "toy", "cpu", "float32", windows_in_flight=3, segment_frames=SEGMENT)
    made = HybridEngine(INFO, networks, lambda info: info, lambda speed: replace(deployment, precision=speed))
    return {"toy": made}


def song(frames: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((channels, frames)).astype(np.float32) * np.float32(0.2) + 0.01


def run(
    blocks: list[np.ndarray] | Iterator[np.ndarray],
    engines: Mapping[str, Engine],
    facts: SongFacts | None = None,
    rate: int = RATE,
    **chosen: Any,
) -> tuple[dict[str, np.ndarray], SeparationReport]:
    parts, report = drained(separate(blocks, rate, SeparationSettings(**chosen), facts, engines=engines))
    return {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}, report


def upstream(audio: np.ndarray, network: torch.nn.Module, **options: Any) -> tuple[np.ndarray, SongFacts]:
    """`demucs.api.Separator.separate_tensor`, which normalises by the song, around `apply_model`."""
    wav = torch.from_numpy(audio)
    mono = wav.mean(0)
    mean, deviation = mono.mean(), mono.std() if wav.shape[1] > 1 else torch.tensor(0.0)
    normal = (wav - mean) / (deviation + 1e-8)
    with torch.no_grad():
        out = apply_model(network, normal[None], split=True, **{"shifts": 0, "overlap": 0.25, **options})[0]
    return (out * (deviation + 1e-8) + mean).numpy(), SongFacts(mean=float(mean), deviation=float(deviation))


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6 * SEGMENT), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75]))
def test_streamed_windows_are_upstreams(frames: int, overlap: float) -> None:
    """For any length and overlap the streamed result is apply_model's, to float32 rounding (100 dB)."""
    audio = song(frames)
    expected, facts = upstream(audio, Toy(), overlap=overlap)
    stems, _ = run([audio], engine(Door({"toy": Toy()})), facts, residual="raw", overlap=overlap)
    found = snr_db(np.stack([stems[name] for name in FOUR]), expected)
    assert found > 100, f"{found:.1f} dB at {frames} frames, overlap {overlap}"


@pytest.mark.parametrize("frames", [1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 3 * SEGMENT // 4, 3 * SEGMENT // 4 + 1])
def test_lengths_around_a_segment(frames: int) -> None:
    """Where upstream's window arithmetic has its corners."""
    audio = song(frames)
    expected, facts = upstream(audio, Toy())
    stems, report = run([audio], engine(Door({"toy": Toy()})), facts, residual="raw")
    found = snr_db(np.stack([stems[name] for name in FOUR]), expected)
    assert found > 100, f"{found:.1f} dB"
    assert report.frames == frames


@pytest.mark.parametrize("frames", [SEGMENT // 2, 5 * SEGMENT])
def test_the_shift_trick_is_upstreams(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same offsets, the mean over shifted passes is apply_model's."""
    audio = song(frames)
    leads = np.random.default_rng(7).integers(0, LONGEST_SHIFT_FRAMES + 1, 3)
    offsets = iter([LONGEST_SHIFT_FRAMES - int(lead) for lead in leads])
    monkeypatch.setattr(random, "randint", lambda low, high: next(offsets))
    expected, facts = upstream(audio, Toy(), shifts=3)
    stems, _ = run([audio], engine(Door({"toy": Toy()})), facts, residual="raw", shifts=3, seed=7)
    found = snr_db(np.stack([stems[name] for name in FOUR]), expected)
    assert found > 100, f"{found:.1f} dB"


def test_shifts_follow_the_seed() -> None:
    """The same seed gives the same bytes, another seed others."""
    audio = song(2 * SEGMENT)
    first, second, third = (
        run([audio], engine(Door({"toy": Toy()})), shifts=2, seed=seed)[0]["drums"] for seed in (1, 1, 2)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 9_000), min_size=1, max_size=6), st.sampled_from([RATE, 48_000, 22_050]), st.booleans())
def test_the_bytes_do_not_depend_on_how_the_stream_was_cut(cuts: list[int], rate: int, known: bool) -> None:
    """At the model's rate and at others, with the song's facts and with the running estimate."""
    audio = song(20_000)
    facts = SongFacts(mean=0.01, deviation=0.15) if known else None
    whole, _ = run([audio], engine(Door({"toy": Toy()})), facts, rate)
    pieces = np.split(audio, np.minimum(np.cumsum(cuts), audio.shape[1]), axis=1)
    cut, _ = run(pieces, engine(Door({"toy": Toy()})), facts, rate)
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 999, 30_001])
def test_length_channels_and_sum(rate: int, channels: int, frames: int) -> None:
    """Exactly as many frames and channels as came in, summing to the song, at any rate."""
    audio = song(frames, channels)
    stems, report = run([audio], engine(Door({"toy": Toy()})), rate=rate)
    assert {part.shape for part in stems.values()} == {audio.shape}
    assert report.frames == frames
    error = float(np.max(np.abs(np.sum(list(stems.values()), axis=0) - audio)))
    assert error < 10 ** (-90 / 20), f"stems miss the song by {error:.2e}"


def test_an_impulse_stays_where_it_is() -> None:
    """Latency 0 through both resamplings."""
    audio = np.zeros((2, 40_000), np.float32)
    audio[:, 20_011] = 0.5
    stems, _ = run([audio], engine(Door({"toy": Toy()})), rate=48_000)
    assert int(np.argmax(np.abs(stems["drums"][0]))) == 20_011


def test_silence_gives_silence() -> None:
    """No division by a deviation of 0."""
    stems, report = run([np.zeros((2, 3 * SEGMENT), np.float32)], engine(Door({"toy": Toy()})))
    assert all(not part.any() for part in stems.values())
    assert report.confidence is None


def test_windows_in_flight_are_few_and_in_order() -> None:
    """However long the song: never more than three windows at the door, and stems flow before the song has ended."""
    door = Door({"toy": Toy()})
    taken = 0

    def arriving() -> Iterator[np.ndarray]:
        nonlocal taken
        for number in range(20):
            taken += 65_536
            yield song(65_536, seed=number)

    first_after = None
    produced = 0
    for part in separate(arriving(), RATE, SeparationSettings(), engines=engine(door)):
        first_after = first_after or taken
        produced += part["drums"].shape[1]
    assert produced == taken == 20 * 65_536
    assert door.most_open <= 3
    assert first_after == 65_536, "the first stems came later than with the first block"


def test_a_bag_asks_each_network_for_its_source_only() -> None:
    """Two stems, folded, take the vocals' network alone; four take all; in a hurry the general stem's is left out."""
    bag = tuple(Network(f"ft_{source}", (source,)) for source in FOUR)
    asked = {}
    for name, chosen in {
        "two": {"stem_count": 2},
        "two raw": {"stem_count": 2, "residual": "raw"},
        "four": {},
        "four fast": {"speed": "fast"},
    }.items():
        door = Door({f"ft_{source}": Toy((source,)) for source in FOUR})
        run([song(SEGMENT // 2)], engine(door, bag), **chosen)
        asked[name] = [model.removeprefix("ft_") for model in door.asked]
    assert asked == {
        "two": ["vocals"],
        "two raw": list(FOUR),
        "four": list(FOUR),
        "four fast": ["drums", "bass", "vocals"],
    }


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, {"vocals": ["vocals"], "instrumental": ["drums", "bass", "other", "guitar", "piano"]}),
        (4, {"vocals": ["vocals"], "drums": ["drums"], "bass": ["bass"], "other": ["other", "guitar", "piano"]}),
        (
            5,
            {
                "vocals": ["vocals"],
                "drums": ["drums"],
                "bass": ["bass"],
                "other": ["other", "guitar"],
                "piano": ["piano"],
            },
        ),
        (6, {name: [name] for name in SIX}),
    ],
)
def test_six_sources_make_any_number_of_stems(count: int, expected: dict[str, list[str]]) -> None:
    """What has no stem of its own goes into the general one."""
    audio = song(3 * SEGMENT)
    sources, facts = upstream(audio, Toy(SIX))
    stems, report = run(
        [audio], engine(Door({"toy": Toy(SIX)}), (Network("toy", SIX),)), facts, residual="raw", stem_count=count
    )
    assert set(report.stems) == set(expected)
    for name, parts in expected.items():
        found = snr_db(stems[name], sum(sources[SIX.index(part)] for part in parts))
        assert found > 90, f"{name}: {found:.1f} dB"


def test_the_running_estimate_is_that_of_the_song_so_far() -> None:
    """Without facts a song of one window is normalised by itself: the same as with its facts."""
    audio = song(SEGMENT - 100)
    expected, _ = upstream(audio, Toy())
    stems, _ = run([audio], engine(Door({"toy": Toy()})), None, residual="raw")
    found = snr_db(np.stack([stems[name] for name in FOUR]), expected)
    assert found > 90, f"{found:.1f} dB"


def test_the_report_says_what_ran_and_how_well_the_stems_sum() -> None:
    """Precision of the chosen speed, residual and confidence of stems that sum badly, with the warning."""
    _, report = run([song(3 * SEGMENT)], engine(Door({"toy": Toy()})), speed="exact")
    assert (report.engine.name, report.engine.backend, report.engine.precision) == ("toy", "toy", "exact")
    assert report.residual_db is not None
    assert report.confidence == pytest.approx(max(0.0, 1 - 10 ** (report.residual_db / 20)))
    assert "LOW_CONFIDENCE" in [warning.code for warning in report.warnings]


BAG = tuple(Network(f"ft_{source}", (source,)) for source in FOUR)


@pytest.mark.parametrize("networks", [(Network("toy", FOUR),), BAG], ids=["one network", "bag of four"])
def test_a_failing_model_fails_the_song_with_its_reason(networks: tuple[Network, ...]) -> None:
    """Mid-song: the model's own error comes out, what waits for the model then is cancelled (the same window for the
    other networks of a bag, and the windows behind it), and no report says success.
    """
    door = Door({network.name: Toy(network.sources) for network in networks})
    door.fails_at = 2 * len(networks) + 1  # the third window, by its first network
    door.held = []
    door.holds_after = door.fails_at
    with pytest.raises(Unavailable) as error:
        run([song(12 * SEGMENT)], engine(door, networks))
    assert error.value.reason == "MODEL_SERVER_UNAVAILABLE"
    rest_of_the_window, windows_behind_it = len(networks) - 1, 2 * len(networks)
    assert len(door.held) == rest_of_the_window + windows_behind_it
    assert all(future.cancelled() for future in door.held)


def test_a_model_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window without an answer ends the song after an hour (here less) with its reason; till then the caller is asked
    all the time whether to go on, and what waits is cancelled.
    """
    monkeypatch.setattr(hybrid, "HUNG_SECONDS", 0.5)
    door = Door({"toy": Toy()})
    door.held = []
    asked: list[float] = []
    stream = separate([song(12 * SEGMENT)], RATE, SeparationSettings(), progress=asked.append, engines=engine(door))
    with pytest.raises(DeadlineExceeded) as error:
        for _ in stream:
            pass
    assert error.value.reason == "MODEL_SERVER_TIMEOUT"
    assert len(asked) > 2
    assert len(door.held) == 3
    assert all(future.cancelled() for future in door.held)


def test_a_caller_who_waits_can_cancel() -> None:
    """While the model does not answer, progress is still called; what it raises cancels the queued windows."""
    door = Door({"toy": Toy()})
    door.held = []
    calls = 0

    def progress(fraction: float) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(separate([song(12 * SEGMENT)], RATE, SeparationSettings(), progress=progress, engines=engine(door)))
    assert door.held
    assert all(future.cancelled() for future in door.held)


def test_an_engine_that_is_not_available_is_refused_with_its_reason() -> None:
    """Named while its weights are missing: MODEL_WEIGHTS_MISSING with the command; unnamed, the next engine serves, and
    where none offers the number of stems the answer is the same as if it had been named."""
    missing = replace(
        INFO,
        available=False,
        unavailable_reason="`outboard models pull toy`",
        unavailable_error="MODEL_WEIGHTS_MISSING",
    )
    absent = HybridEngine(missing, (), lambda info: info, lambda speed: pytest.fail("deployed"))
    engines: dict[str, Engine] = {"toy": absent}
    engines["second"] = engine(Door({"toy": Toy()}))["toy"]
    with pytest.raises(FailedPrecondition, match="outboard models pull toy") as error:
        run([song(SEGMENT)], engines, engine="toy")
    assert error.value.reason == "MODEL_WEIGHTS_MISSING"
    _, report = run([song(SEGMENT)], engines)
    assert report.engine.available
    with pytest.raises(FailedPrecondition, match="outboard models pull toy") as error:
        run([song(SEGMENT)], {"toy": absent}, stem_count=6)
    assert error.value.reason == "MODEL_WEIGHTS_MISSING"
