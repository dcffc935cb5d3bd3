"""Streaming transform and overlap-add."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outboard.audio.overlap_add import OverlapAdd, StreamingStft, fixed_blocks


def through(audio: np.ndarray, window: int, hop: int, block: int) -> np.ndarray:
    """The audio analysed and synthesised in blocks, flushed with silence, cut to its length."""
    transform = StreamingStft(audio.shape[0], window, hop)
    synthesis = OverlapAdd((audio.shape[0],), window, hop)
    total = -(-(audio.shape[1] + synthesis.delay_frames) // block) * block
    padded = np.pad(audio, ((0, 0), (0, total - audio.shape[1])))
    pieces = [synthesis.process(transform.process(padded[:, at : at + block])) for at in range(0, total, block)]
    return np.concatenate(pieces, axis=1)[:, : audio.shape[1]]


@pytest.mark.parametrize(("window", "hop"), [(4096, 1024), (1024, 512), (512, 64)])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frames", [1, 3, 4095, 20_000])
def test_nothing_done_to_the_spectra_gives_the_input_back(window: int, hop: int, channels: int, frames: int) -> None:
    """Analysis and synthesis null to below -120 dBFS from the first sample to the last, at any length."""
    audio = np.random.default_rng(0).uniform(-1, 1, (channels, frames)).astype(np.float32)
    error = np.max(np.abs(through(audio, window, hop, 4 * hop) - audio))
    assert error < 1e-6, f"largest error {error:.2e}"


def test_an_impulse_stays_where_it_is() -> None:
    """Latency is compensated: an impulse at frame n comes out at frame n."""
    audio = np.zeros((1, 9_000), np.float32)
    audio[0, 5_001] = 1.0
    assert int(np.argmax(np.abs(through(audio, 2048, 512, 2048)))) == 5_001


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 700), max_size=20), st.integers(1, 500))
def test_blocks_are_cut_alike_however_the_stream_was(cuts: list[int], size: int) -> None:
    """Every block but the last has the asked size, and nothing is lost, added or moved."""
    stream = np.arange(sum(cuts), dtype=np.float32)[None]
    pieces = np.split(stream, np.cumsum(cuts)[:-1], axis=1) if cuts else []
    blocks = list(fixed_blocks(pieces, size))
    assert [block.shape[1] for block in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert all(block.shape[1] for block in blocks)
    joined = np.concatenate(blocks, axis=1) if blocks else stream
    assert np.array_equal(joined, stream)


def test_blocks_do_not_share_the_callers_buffer() -> None:
    """A caller may reuse its buffer after handing it over."""
    buffer = np.ones((1, 4), np.float32)

    def stream() -> object:
        yield buffer
        buffer[:] = 2.0
        yield buffer

    (block,) = fixed_blocks(stream(), 8)  # type: ignore[arg-type]
    assert block.tolist() == [[1, 1, 1, 1, 2, 2, 2, 2]]


@pytest.mark.parametrize(("window", "hop"), [(5, 1), (8, 3), (8, 8), (8, 0), (0, 1)])
def test_a_geometry_without_perfect_reconstruction_is_refused(window: int, hop: int) -> None:
    """Odd windows and hops that do not divide half the window are errors, not bad sound."""
    with pytest.raises(ValueError, match="window"):
        StreamingStft(1, window, hop)
    with pytest.raises(ValueError, match="window"):
        OverlapAdd((1,), window, hop)


def test_a_block_of_broken_hops_is_refused() -> None:
    """Blocks must hold whole hops."""
    with pytest.raises(ValueError, match="whole hops"):
        StreamingStft(1, 8, 2).process(np.zeros((1, 3), np.float32))
