"""Windows through torch: filled up to fixed batch sizes, and back."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from outboard.models.htdemucs import transform  # noqa: E402 - torch may be absent
from outboard.models.triton_torch import Windows  # noqa: E402

_FRAMES = 16_384


def _halves(mix: torch.Tensor, spectrogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Two stems: half of the mix in the frequency branch, a quarter in the time branch; the second stem is negative."""
    return torch.stack([spectrogram / 2, -spectrogram / 2], 1), torch.stack([mix / 4, -mix / 4], 1)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_windows_come_back_without_the_filling(count: int) -> None:
    """Any number of windows up to the largest batch gives as many, each computed as it would be alone."""
    sizes: list[int] = []

    def core(mix: torch.Tensor, spectrogram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(mix))
        return _halves(mix, spectrogram)

    hertz = np.random.default_rng(count).uniform(100.0, 10_000.0, (count, 2, 1))
    mix = np.sin(2.0 * np.pi * hertz / 44_100 * np.arange(_FRAMES)).astype(np.float32)
    stems = Windows(core, "cpu", "fp32", (1, 4))(torch.from_numpy(mix)).numpy()
    assert sizes == [1 if count == 1 else 4]
    assert stems.shape == (count, 2, 2, _FRAMES)
    # The transform covers the ends of a window only in part.
    inside = slice(_FRAMES // 4, -_FRAMES // 4)
    error_db = 20 * np.log10(np.max(np.abs(stems[:, 0] - 0.75 * mix)[..., inside]))
    assert error_db < -80, f"{error_db:.1f} dB"
    np.testing.assert_allclose(stems[:, 1], -stems[:, 0], atol=1e-6)


def test_kept_positions_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """With position embeddings kept from pass to pass the network's answers are the same bytes."""
    network = pytest.importorskip("outboard.models.htdemucs.network")
    monkeypatch.setattr(network.transformer, "create_2d_sin_embedding", network.transformer.create_2d_sin_embedding)
    core = network.Core(network.seeded(("a", "b"), 1, {**network.TINY, "segment": 1}))
    mix = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 2, 44_100)).astype(np.float32))
    spectrogram = transform.spectrogram(mix)
    with torch.inference_mode():
        before = core(mix, spectrogram)
        network.keep_positions.__wrapped__()
        for _ in range(2):
            after = core(mix, spectrogram)
    assert network.transformer.create_2d_sin_embedding.cache_info().hits
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one, other)
