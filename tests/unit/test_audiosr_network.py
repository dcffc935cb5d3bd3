"""AudioSR's networks at a small size: what upstream computes on the same weights, and the same in any batch."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: make models")
if importlib.util.find_spec("audiosr") is None:
    pytest.skip("the package audiosr is not installed: make models", allow_module_level=True)

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from outboard.errors import FailedPrecondition  # noqa: E402 - torch may be absent
from outboard.models.audiosr import network  # noqa: E402
from outboard.models.audiosr.door import SHORTEST_FRAMES, WINDOW_FRAMES, Controls  # noqa: E402
from outboard.models.audiosr.sampling import Noise, sampled, signal_powers  # noqa: E402
from outboard.models.audiosr.windows import Windows, log_mel  # noqa: E402
from outboard.models.registry import find  # noqa: E402
from outboard.models.weights import WeightsFolder  # noqa: E402
from tests.audiosr_upstream import Upstream  # noqa: E402
from tests.tiny_models import snr_db  # noqa: E402

FRAMES = 2 * SHORTEST_FRAMES


@pytest.fixture(scope="module")
def networks() -> network.Networks:
    return network.seeded(seed=3)


def sound(seed: int, frames: int = FRAMES) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, frames).astype(np.float32)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning", "ignore:.*__array_wrap__.*:DeprecationWarning")
def test_equals_upstream(networks: network.Networks, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mel spectrogram that sampler and decoder make is upstream's on the same weights and the same noise, to 80 dB;
    so is the one that they are given.
    """
    upstream = Upstream(networks, monkeypatch)
    audio = torch.from_numpy(sound(1))
    mel = log_mel(audio[None])
    reached = snr_db(mel[0].numpy(), upstream.mel(audio).numpy())
    assert reached >= 80.0, f"mel spectrogram: {reached:.1f} dB"
    for steps, guidance in ((10, 3.5), (5, 1.0)):
        theirs = upstream.decoded(mel[0], Noise([7], mel.shape[1], audio.device), steps, guidance)
        noise = Noise([7], mel.shape[1], audio.device)
        with torch.inference_mode():
            condition = networks.conditioned(mel, noise())
            ours = networks.decoded(sampled(networks, condition, noise, steps, guidance))[0]
        reached = snr_db(ours.numpy(), theirs.numpy())
        assert reached >= 80.0, f"{steps} steps, guidance {guidance}: {reached:.1f} dB"


def test_a_window_is_the_same_in_any_batch(networks: network.Networks) -> None:
    """A window's noise depends on its key alone: bit for bit the same again, within -100 dBFS in another batch and
    beside windows of other lengths and settings; another key sounds different.
    """
    compute = Windows(networks)
    audio = torch.from_numpy(np.stack([sound(seed, WINDOW_FRAMES) for seed in range(3)]))
    how = [Controls(2**62 + 5, FRAMES, 8_000.0, 2, 3.5), Controls(9, SHORTEST_FRAMES, 4_000.0, 1, 1.0)]
    how.append(Controls(2**62 + 6, FRAMES, 8_000.0, 2, 3.5))
    controls = np.stack([each.packed() for each in how])
    alone = compute(audio[:1], controls[:1])
    assert torch.equal(alone, compute(audio[:1], controls[:1]))
    together = compute(audio, controls)
    error_db = 20 * np.log10(max(float((together[0] - alone[0]).abs().max()), 1e-12))
    assert error_db < -100.0, f"{error_db:.1f} dBFS"
    other = compute(audio[:1], controls[2:])
    assert float((other - alone).abs().max()) > 1e-3
    assert not together[1, SHORTEST_FRAMES:].any(), "what does not count is silence"
    assert together[1, :SHORTEST_FRAMES].any()


def test_below_the_cutoff_the_vocoder_gets_the_window_itself(networks: network.Networks) -> None:
    """With the cutoff at the top nothing is drawn: no step of the sampler changes a sample, since mel bands that end
    below the cutoff are the window's own.
    """
    compute = Windows(networks)
    audio = torch.from_numpy(sound(4, WINDOW_FRAMES))[None]
    one, other = (Controls(key, SHORTEST_FRAMES, 24_000.0, 1, 1.0).packed()[None] for key in (1, 2))
    assert torch.equal(compute(audio, one), compute(audio, other))
    lower = Controls(1, SHORTEST_FRAMES, 12_000.0, 1, 1.0).packed()[None]
    assert not torch.equal(compute(audio, one), compute(audio, lower))


def test_controls_survive_float32() -> None:
    """Keys of 63 bits, frames and settings come through the door as they went in; zeros mean the least there is."""
    for key in (0, 1, 2**21, 2**42 + 2**21 + 1, 2**63 - 1):
        controls = Controls(key, WINDOW_FRAMES, 11_025.0, 50, 3.5)
        assert Controls.unpacked(controls.packed()) == controls
    assert Controls.unpacked(np.zeros(7, np.float32)) == Controls(0, SHORTEST_FRAMES, 0.0, 1, 1.0)


def test_the_schedule_falls_from_signal_to_noise() -> None:
    """The power of the signal falls over the 1000 steps from nearly 1 to 0."""
    powers = signal_powers()
    assert powers.shape == (1000,)
    assert np.all(np.diff(powers) < 0)
    assert powers[0] > 0.999
    assert powers[-1] < 1e-9


def test_saved_networks_are_loaded_as_they_were(networks: network.Networks, tmp_path: Path) -> None:
    """Weights go through a file unchanged."""
    network.save(networks, tmp_path / "audiosr.safetensors")
    loaded = network.load(tmp_path / "audiosr.safetensors")
    assert loaded.architecture == network.TINY
    for (name, ours), (_, theirs) in zip(networks.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


def published(networks: network.Networks, path: Path, **more: object) -> Path:
    """A checkpoint as its authors publish it: with arrays twice, an average, CLAP, and counters beside the arrays."""
    state = networks.state_dict()
    doubled = {f"first_stage_model.encoder.{n}": torch.zeros(2) for n in range(3)}
    average = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(3)}
    clap = {"clap.model.token": torch.zeros(4), "betas": torch.zeros(1000)}
    package = {"state_dict": {**doubled, **state, **average, **clap}, "epoch": 3, "global_step": 7, **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(package, path)
    return path


def test_a_published_checkpoint_is_converted_and_pinned(networks: network.Networks, tmp_path: Path) -> None:
    """What training wrote becomes a safetensors file of the needed arrays and no other, without being unpickled as a
    program; since nobody publishes a digest, it is held to that of the first time.
    """
    model = find("audiosr")
    folder = WeightsFolder(model, tmp_path)
    source = published(networks, folder.path / "pytorch_model.bin")
    path = folder.require("audiosr.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(networks.state_dict())
        for name, value in networks.state_dict().items():
            assert torch.equal(file.get_tensor(name), value), name
    assert folder.presence().verified
    path.unlink()
    published(networks, source, global_step=8)
    with pytest.raises(FailedPrecondition) as caught:
        folder.require("audiosr.safetensors")
    assert caught.value.reason == "MODEL_WEIGHTS_DIGEST_MISMATCH"


def test_other_checkpoints_are_refused(networks: network.Networks, tmp_path: Path) -> None:
    """A checkpoint of another network, and one that would run something, are named for what they are."""
    folder = WeightsFolder(find("audiosr"), tmp_path)
    folder.path.mkdir(parents=True)
    torch.save({"state_dict": {"encoder.weight": torch.zeros(3)}}, folder.path / "pytorch_model.bin")
    with pytest.raises(FailedPrecondition) as caught:
        folder.require("audiosr.safetensors")
    assert caught.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"
    published(networks, folder.path / "pytorch_model.bin", callbacks=Path("x"))
    with pytest.raises(FailedPrecondition) as caught:
        folder.require("audiosr.safetensors")
    assert caught.value.reason == "MODEL_WEIGHTS_UNSAFE"


def test_published_weights_that_lack_something_name_it(networks: network.Networks, tmp_path: Path) -> None:
    """Without metadata the sizes are the published ones: small networks are not taken for them."""
    state = {name: value.contiguous() for name, value in networks.state_dict().items()}
    save_file(state, tmp_path / "audiosr.safetensors")
    with pytest.raises(FailedPrecondition, match="not of AudioSR") as caught:
        network.load(tmp_path / "audiosr.safetensors")
    assert caught.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"
