"""The full-size network, streamed, against upstream's `apply_model` with the same seeded weights."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import apply_model

from outboard.models.htdemucs import network
from outboard.models.htdemucs.backends import ONNXRUNTIME, OPENVINO, TORCH
from outboard.models.htdemucs.choice import candidates
from outboard.models.htdemucs.transform import SEGMENT_FRAMES
from outboard.models.htdemucs.variants import FOUR_SOURCES
from outboard.models.local import LocalInference
from services.separator.engines import EngineInfo, SeparationSettings, SongFacts
from services.separator.hybrid import Deployment, HybridEngine, Network
from services.separator.separate import separate
from tests.tiny_models import snr_db, write_models

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, ("htdemucs",), network.FULL)
    return folder


WAYS = [(TORCH, "exact", 100), (OPENVINO, "balanced", 60), (ONNXRUNTIME, "balanced", 60), (OPENVINO, "fast", 35)]


def separated(root: Path, backend: str, speed: str, blocks: list[np.ndarray]) -> np.ndarray:
    """The four stems as they come out of the streaming engine, [4, 2, frames]."""
    how = next(how for how in candidates("balanced" if speed == "exact" else speed) if how.backend == backend)
    inference = LocalInference(how, root)
    deployment = Deployment(inference.infer, how.backend, how.device, how.precision)
    info = EngineInfo("htdemucs", 1, stem_counts=(4,))
    engine = HybridEngine(info, (Network("htdemucs", FOUR_SOURCES),), lambda known: known, lambda speed: deployment)
    settings = SeparationSettings(residual="raw", speed=speed)
    parts = list(separate(blocks, 44_100, settings, SongFacts(mean=0.0, deviation=1.0), engines={"x": engine}))
    inference.close()
    return np.stack([np.concatenate([part[name] for part in parts], axis=1) for name in FOUR_SOURCES])


def noise(frames: int) -> np.ndarray:
    return np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32) * np.float32(0.1)


@functools.cache
def expected_of(root: Path, frames: int) -> np.ndarray:
    return upstream(root, noise(frames))


def upstream(root: Path, audio: np.ndarray) -> np.ndarray:
    model = network.load(root / "htdemucs" / "955717e8.safetensors", FOUR_SOURCES)
    with torch.no_grad():
        stems = apply_model(model, torch.from_numpy(audio)[None], shifts=0, split=True, overlap=0.25)
    return np.asarray(stems[0])


@pytest.mark.parametrize(("backend", "speed", "goal_db"), WAYS)
@pytest.mark.parametrize("frames", [100_000, SEGMENT_FRAMES, SEGMENT_FRAMES + 1, 2 * SEGMENT_FRAMES])
def test_streamed_separation_is_upstreams(root: Path, backend: str, speed: str, goal_db: float, frames: int) -> None:
    """100 dB by torch, 60 by default, 35 fast, every stem by itself; below, at, just above one window, and several."""
    expected = expected_of(root, frames)
    found = separated(root, backend, speed, np.array_split(noise(frames), 7, axis=1))
    decibels = [snr_db(ours, theirs) for ours, theirs in zip(found, expected, strict=True)]
    print(f"{backend} {speed}, {frames} frames: {min(decibels):.1f} to {max(decibels):.1f} dB")  # docs/benchmarks.md
    assert min(decibels) >= goal_db, dict(zip(FOUR_SOURCES, decibels, strict=True))


@pytest.mark.parametrize(("backend", "speed", "goal_db"), WAYS)
def test_the_same_bytes_and_silence_from_silence(root: Path, backend: str, speed: str, goal_db: float) -> None:
    """Whatever the chunks, the same bytes; of silence, upstream's, which is silence."""
    audio = noise(SEGMENT_FRAMES + 1)
    whole = separated(root, backend, speed, [audio])
    assert np.array_equal(whole, separated(root, backend, speed, np.split(audio, (1, 5_000, 200_001), axis=1)))
    silence = np.zeros((2, SEGMENT_FRAMES), np.float32)
    found = separated(root, backend, speed, [silence])
    loudest = float(np.max(np.abs(found - upstream(root, silence))))
    assert loudest < 1e-6, f"{loudest:.1e}"
