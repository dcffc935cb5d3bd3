"""The full-size network, streamed, against upstream's `apply_model` with the same seeded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import apply_model

from outboard.models.htdemucs import network
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


@pytest.mark.parametrize(("speed", "goal_db"), [("exact", 100), ("balanced", 60), ("fast", 35)])
@pytest.mark.parametrize("frames", [100_000, SEGMENT_FRAMES, SEGMENT_FRAMES + 1, 2 * SEGMENT_FRAMES])
def test_streamed_separation_is_upstreams(root: Path, speed: str, goal_db: float, frames: int) -> None:
    """100 dB by torch, 60 by default, 35 fast, every stem by itself."""
    audio = np.random.default_rng(frames).standard_normal((2, frames)).astype(np.float32) * np.float32(0.1)
    with torch.no_grad():
        model = network.load(root / "htdemucs" / "955717e8.safetensors", FOUR_SOURCES)
        expected = apply_model(model, torch.from_numpy(audio)[None], shifts=0, split=True, overlap=0.25)[0].numpy()
    inference = LocalInference(speed, root)
    deployment = Deployment(inference.infer, "", "", "")
    info = EngineInfo("htdemucs", 1, stem_counts=(4,))
    engine = HybridEngine(info, (Network("htdemucs", FOUR_SOURCES),), lambda known: known, lambda speed: deployment)
    settings = SeparationSettings(residual="raw", speed=speed)
    blocks = np.array_split(audio, 7, axis=1)
    parts = list(separate(blocks, 44_100, settings, SongFacts(mean=0.0, deviation=1.0), engines={"x": engine}))
    inference.close()
    for index, name in enumerate(FOUR_SOURCES):
        found = snr_db(np.concatenate([part[name] for part in parts], axis=1), expected[index])
        assert found >= goal_db, f"{name}: {found:.1f} dB"
