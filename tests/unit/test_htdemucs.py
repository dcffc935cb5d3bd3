"""The network and its transforms against upstream's class, and this process's inference against upstream's result."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import CancelledError
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
from typer.testing import CliRunner

from outboard.cli.app import app
from outboard.errors import FailedPrecondition, Internal, InvalidInput
from outboard.models import local
from outboard.models.htdemucs import choice, exports, network, transform
from outboard.models.htdemucs.backends import ONNXRUNTIME, OPENVINO, TORCH, Arithmetic
from outboard.models.htdemucs.choice import candidates
from outboard.models.htdemucs.layers import ExportedCore
from outboard.models.htdemucs.variants import FOUR_SOURCES, SIX_SOURCES, VARIANTS, Variant
from outboard.models.local import LocalInference
from outboard.settings import Settings
from services.separator import deployment
from services.separator.engines import EngineInfo, SeparationSettings, SongFacts
from services.separator.hybrid import Deployment, HybridEngine, Network
from services.separator.separate import separate
from tests.tiny_models import SHORT, snr_db, write_models

SEGMENT = 44_100
WAYS = [
    (TORCH, "exact", 100),
    (OPENVINO, "balanced", 60),
    (ONNXRUNTIME, "balanced", 60),
    (OPENVINO, "fast", 35),
]
VOCALS = "htdemucs_ft_vocals"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with windows of one second."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder, ("htdemucs", VOCALS), SHORT)
    return folder


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(0.1)


def pulled() -> dict[str, object]:
    result = CliRunner().invoke(app, ["models", "pull", "htdemucs", "--json"])
    assert result.exception is None, result.exception
    return dict(json.loads(result.stdout))


@pytest.mark.timeout(600)
def test_pull_measures_what_is_installed_and_leaves_nothing_for_the_first_song(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`models pull` exports the networks, has OpenVINO, ONNX Runtime and torch compute a window each, and keeps the
    fastest: engine, list and command name it. The next pull measures nothing. (The first test of the module, as an
    export takes half a minute, which the others use.)"""
    monkeypatch.setenv("OUTBOARD_MODELS", str(root))
    folder = root / "htdemucs" / "exports"
    assert not folder.exists()
    answer = pulled()
    known = choice.stored("htdemucs")
    assert known is not None
    assert {Arithmetic(each, "cpu", "float32") for each in (OPENVINO, ONNXRUNTIME, TORCH)} <= set(known.window_seconds)
    assert all(0.0 < seconds < 60.0 for seconds in known.window_seconds.values()), known
    best = known.chosen["balanced"]
    assert known.window_seconds[best] <= 1.06 * min(known.window_seconds[how] for how in candidates("balanced"))
    assert (answer["fetched"], answer["problem"]) == (False, "")
    assert str(answer["backend"]).startswith(f"{best.backend} {best.precision}")
    exported = sorted(path for path in folder.iterdir() if path.suffix == ".onnx")
    assert exported[0].stat().st_size > 1_000_000
    assert answer["exports"] == ([str(path) for path in exported] if best.takes_export else [])
    assert deployment.engines(Settings())["htdemucs"].info.backend.startswith(best.backend)
    before = (folder / "backends.json").read_bytes()
    assert pulled()["backend"] == answer["backend"]
    assert (folder / "backends.json").read_bytes() == before


@pytest.mark.parametrize("frames", [transform.SEGMENT_FRAMES, SEGMENT, 40_960])
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_transforms_are_upstreams(frames: int, kind: str) -> None:
    """Spectrogram and its inverse, by NumPy and by torch, to float32 rounding (110 dB)."""
    upstream = network.seeded(FOUR_SOURCES, 0, SHORT)
    mix, branch, wave = (torch.from_numpy(noise(*shape)) for shape in (
        (2, 2, frames), (1, 2, 4, 2048, transform.spectrogram_frames(frames)), (1, 2, 2, frames)))  # fmt: skip
    spectrogram = upstream._magnitude(upstream._spec(mix))
    stems = upstream._ispec(upstream._mask(None, branch), frames) + wave
    given = [each if kind == "torch" else each.numpy() for each in (mix, branch, wave)]
    ours = [np.asarray(transform.spectrogram(given[0])), np.asarray(transform.stems(*given[1:]))]
    for mine, theirs in zip(ours, (spectrogram, stems), strict=True):
        assert mine.dtype == np.float32
        assert mine.flags.c_contiguous
        assert snr_db(mine, theirs.numpy()) > 110


@pytest.mark.parametrize("sources", [FOUR_SOURCES, SIX_SOURCES])
def test_the_core_between_transforms_is_upstreams_network(sources: tuple[str, ...]) -> None:
    """All sources of a batch of two, and each source alone, equal upstream's forward pass (110 dB)."""
    upstream = network.seeded(sources, 3, SHORT)
    mix = torch.from_numpy(noise(2, 2, SEGMENT))
    with torch.no_grad():
        expected = upstream(mix).numpy()
        whole = network.Windowed(network.Core(network.seeded(sources, 3, SHORT)))(mix).numpy()
        last = network.Windowed(network.Core(network.seeded(sources, 3, SHORT), sources[-1:]))(mix).numpy()
    assert snr_db(whole, expected) > 110
    assert snr_db(last, expected[:, -1:]) > 110


@pytest.mark.parametrize("frames", [SEGMENT, SEGMENT - 1])
@pytest.mark.parametrize("changes", [{}, {"norm_starts": 2}, {"dconv_mode": 1}])
def test_the_exported_layers_are_upstreams(frames: int, changes: dict[str, int]) -> None:
    """Written anew for the export, they give the same (110 dB), with residual branches that are heard; layers that no
    published network has are left as they are."""
    upstream = network.seeded(FOUR_SOURCES, 3, {**SHORT, **changes})
    for name, scale in upstream.named_parameters():
        if name.endswith(".6.scale"):
            torch.nn.init.constant_(scale, 0.5)
    mix, spectrogram = torch.from_numpy(noise(2, 2, frames)), transform.spectrogram(noise(2, 2, frames))
    with torch.no_grad():
        expected = network.Core(upstream)(mix, torch.from_numpy(spectrogram))
        found = ExportedCore(upstream)(mix, torch.from_numpy(spectrogram))
    for mine, theirs in zip(found, expected, strict=True):
        assert snr_db(mine.numpy(), theirs.numpy()) > 110


def test_the_full_architecture_has_the_published_size() -> None:
    """41,984,456 parameters, windows of 343,980 frames; no trace in torch's generator."""
    before = torch.random.get_rng_state()
    full = network.seeded(FOUR_SOURCES)
    assert sum(parameter.numel() for parameter in full.parameters()) == 41_984_456
    assert network.segment_frames(full) == transform.SEGMENT_FRAMES
    assert torch.equal(before, torch.random.get_rng_state())
    assert isinstance(full, HTDemucs)


def test_weights_of_another_shape_are_of_another_model(tmp_path: Path) -> None:
    """Other sources, another architecture's tensors, hostile sizes: each is refused before it is built."""
    path = tmp_path / "a.safetensors"
    network.save(network.seeded(FOUR_SOURCES, 0, SHORT), path)
    assert network.segment_frames(network.load(path, FOUR_SOURCES)) == SEGMENT
    with pytest.raises(FailedPrecondition, match="separates") as error:
        network.load(path, SIX_SOURCES)
    assert error.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"
    odd = network.seeded(FOUR_SOURCES, 0, SHORT)
    for changes, text in (
        ({"channels": 12}, "tensors do not fit"),
        ({"channels": 100_000}, "more than"),
        ({"samplerate": 48_000}, "samplerate"),
        ({"multi_freqs": [0.5]}, "splits frequencies"),
    ):
        odd._init_args_kwargs = ((list(FOUR_SOURCES),), {**SHORT, **changes})
        network.save(odd, path)
        with pytest.raises(FailedPrecondition, match=text) as error:
            network.load(path, FOUR_SOURCES)
        assert error.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"


def computing(backend: str, speed: str, root: Path) -> LocalInference:
    """A backend at a speed: fast is bfloat16 where it can be."""
    how = next(how for how in candidates(speed) if how.backend == backend)
    return LocalInference(Arithmetic(TORCH, "cpu", "float32") if speed == "exact" else how, root)


def separated(
    audio: np.ndarray, inference: LocalInference, speed: str, facts: SongFacts, cuts: tuple[int, ...] = ()
) -> np.ndarray:
    how = inference.arithmetic
    deployment = Deployment(inference.infer, how.backend, how.device, how.precision, segment_frames=SEGMENT)
    info = EngineInfo("htdemucs", 1, stem_counts=(2, 4))
    engine = HybridEngine(info, (Network("htdemucs", FOUR_SOURCES),), lambda info: info, lambda speed: deployment)
    settings = SeparationSettings(residual="raw", speed=speed)
    parts = list(separate(np.split(audio, cuts, axis=1), 44_100, settings, facts, engines={"htdemucs": engine}))
    inference.close()
    return np.stack([np.concatenate([part[name] for part in parts], axis=1) for name in FOUR_SOURCES])


def upstream(audio: np.ndarray, root: Path) -> tuple[np.ndarray, SongFacts]:
    model = network.load(root / "htdemucs" / "955717e8.safetensors", FOUR_SOURCES)
    wav = torch.from_numpy(audio)
    mean, deviation = wav.mean(0).mean(), wav.mean(0).std()
    with torch.no_grad():
        out = apply_model(model, ((wav - mean) / (deviation + 1e-8))[None], shifts=0, split=True, overlap=0.25)[0]
    return (out * (deviation + 1e-8) + mean).numpy(), SongFacts(mean=float(mean), deviation=float(deviation))


@pytest.mark.parametrize(("backend", "speed", "goal_db"), WAYS)
@pytest.mark.parametrize("frames", [SEGMENT // 3, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 777])
def test_streamed_separation_is_upstreams(root: Path, backend: str, speed: str, goal_db: float, frames: int) -> None:
    """With the same weights, below, at and just above one window: 100 dB by torch, 60 by default, 35 fast."""
    audio = noise(2, frames)
    expected, facts = upstream(audio, root)
    found = snr_db(separated(audio, computing(backend, speed, root), speed, facts), expected)
    assert found >= goal_db, f"{found:.1f} dB"


@pytest.mark.parametrize(("backend", "speed", "goal_db"), WAYS)
def test_the_bytes_do_not_depend_on_how_the_stream_was_cut(
    root: Path, backend: str, speed: str, goal_db: float
) -> None:
    """A network's arithmetic is the same from run to run, whatever the chunks."""
    audio = noise(2, 2 * SEGMENT)
    facts = SongFacts(mean=0.0, deviation=0.1)
    whole = separated(audio, computing(backend, speed, root), speed, facts)
    cut = separated(audio, computing(backend, speed, root), speed, facts, (1, 5_000, 70_001))
    assert np.array_equal(whole, cut)


@pytest.mark.parametrize("backend", [OPENVINO, ONNXRUNTIME, TORCH])
def test_silence_is_separated_into_silence(root: Path, backend: str) -> None:
    """Nothing in, nothing out."""
    silence = np.zeros((2, SEGMENT + 5), np.float32)
    stems = separated(silence, computing(backend, "balanced", root), "balanced", SongFacts())
    assert float(np.max(np.abs(stems))) < 1e-6


def test_an_export_is_made_once_and_named_after_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the weights; other weights, or other kept sources, get another file. What it replaces goes: exports of the
    same network of former weights and by former versions, and no other."""
    made: list[Path] = []

    def export(weights: Path, variant: Variant, target: Path) -> None:
        target.touch()
        made.append(target)

    monkeypatch.setattr(exports, "_export_apart", export)
    write_models(tmp_path, ("htdemucs", VOCALS), SHORT)
    first = exports.exported_core(VARIANTS["htdemucs"], tmp_path)
    assert exports.exported_core(VARIANTS["htdemucs"], tmp_path) == first
    assert first.parent == tmp_path / "htdemucs" / "exports"
    digits = first.stem.rsplit("-", 2)[1]
    kept = first.with_name(f"955717e8-drums-{digits}-1.onnx")
    former = first.with_name(first.name.replace(digits, "0123456789abcdef").replace("-2.onnx", "-1.onnx"))
    kept.touch()
    former.touch()
    network.save(network.seeded(FOUR_SOURCES, 99, SHORT), tmp_path / "htdemucs" / "955717e8.safetensors")
    second = exports.exported_core(VARIANTS["htdemucs"], tmp_path)
    assert set(first.parent.iterdir()) == {second, kept}
    exports.exported_core(VARIANTS[VOCALS], tmp_path)
    assert len({path.name for path in made}) == len(made) == 3


def test_a_network_kept_for_one_source_gives_that_source(root: Path) -> None:
    """The exported network of the bag that serves vocals computes nothing else, and the same."""
    inference = computing(OPENVINO, "balanced", root)
    mix = noise(2, 2, SEGMENT)
    stems = inference.infer(VOCALS, {"mix": mix}).result()["stems"]
    inference.close()
    whole = network.load(root / "htdemucs_ft" / "04573f0d.safetensors", FOUR_SOURCES)
    with torch.no_grad():
        expected = whole(torch.from_numpy(mix)).numpy()[:, 3:]
    assert stems.shape == (2, 1, 2, SEGMENT)
    assert snr_db(stems, expected) > 60


def test_what_cannot_be_computed_fails_with_its_reason(root: Path, tmp_path: Path) -> None:
    """Unknown name, wrong shape, wrong length, weights missing, weights of another model: each says so."""
    inference = computing(OPENVINO, "balanced", root)
    for name, mix in (
        ("magic", noise(1, 2, SEGMENT)),
        ("htdemucs", noise(2, SEGMENT)),
        ("htdemucs", noise(1, 2, SEGMENT).astype(np.float64)),
        ("htdemucs", noise(1, 2, SEGMENT + 1)),
    ):
        with pytest.raises(InvalidInput) as error:
            inference.infer(name, {"mix": mix}).result()
        assert error.value.reason == "MODEL_INVALID"
    with pytest.raises(FailedPrecondition, match="outboard models pull htdemucs_6s") as missing:
        inference.infer("htdemucs_6s", {"mix": noise(1, 2, SEGMENT)}).result()
    assert missing.value.reason == "MODEL_WEIGHTS_MISSING"
    inference.close()
    (tmp_path / "htdemucs_6s").mkdir()
    network.save(network.seeded(FOUR_SOURCES, 0, SHORT), tmp_path / "htdemucs_6s" / "5c90dfd2.safetensors")
    for backend in (TORCH, OPENVINO):  # of those that take an export, one
        other = computing(backend, "balanced", tmp_path)
        with pytest.raises(FailedPrecondition, match="separates") as wrong:
            other.infer("htdemucs_6s", {"mix": noise(1, 2, SEGMENT)}).result()
        assert wrong.value.reason == "MODEL_WEIGHTS_OF_OTHER_MODEL"
        other.close()


def test_weights_where_nobody_writes_say_what_to_do(tmp_path: Path) -> None:
    """The export has to lie beside the weights: where it cannot (here a file stands in its folder's place), the song
    fails with ENGINE_UNAVAILABLE and the command that mends it, without a path of the machine.
    """
    write_models(tmp_path, ("htdemucs",), SHORT)
    (tmp_path / "htdemucs" / "exports").touch()
    inference = computing(OPENVINO, "balanced", tmp_path)
    with pytest.raises(FailedPrecondition, match="`outboard models export htdemucs`") as error:
        inference.infer("htdemucs", {"mix": noise(1, 2, SEGMENT)}).result()
    assert error.value.reason == "ENGINE_UNAVAILABLE"
    assert str(tmp_path) not in error.value.message
    inference.close()


def test_what_a_library_says_is_for_the_log(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that is none of ours fails the window with MODEL_FAILED and its kind; its words, which may hold
    paths, stand in the log.
    """

    def fail(*_: object) -> None:
        raise RuntimeError(f"cannot open {tmp_path}")

    monkeypatch.setattr(local, "load_core", fail)
    inference = computing(TORCH, "exact", root)
    with pytest.raises(Internal) as error:
        inference.infer("htdemucs", {"mix": noise(1, 2, SEGMENT)}).result()
    assert (error.value.reason, error.value.message) == ("MODEL_FAILED", "a model failed (RuntimeError), see the log")
    assert str(tmp_path) in caplog.text
    inference.close()


def test_a_queued_window_can_be_cancelled(root: Path) -> None:
    """Windows that have not begun leave the queue; those before and after are computed."""
    inference = computing(TORCH, "exact", root)
    futures = [inference.infer("htdemucs", {"mix": noise(1, 2, SEGMENT)}) for _ in range(6)]
    assert futures[4].cancel()
    with pytest.raises(CancelledError):
        futures[4].result()
    assert all(future.result()["stems"].shape == (1, 4, 2, SEGMENT) for i, future in enumerate(futures) if i != 4)
    inference.close()


def test_torch_is_not_loaded_without_weights() -> None:
    """Starting the separator, listing its engines and separating by spectral imports neither torch nor a runtime."""
    program = (
        "import sys, numpy as np\n"
        "from services.separator import __main__ as stage, separate\n"
        "from services.separator.deployment import engines\n"
        "from outboard.settings import Settings\n"
        "known = engines(Settings())\n"
        "assert [e.name for e in separate.list_engines(known) if e.available] == ['spectral', 'passthrough']\n"
        "assert separate.choose_engine(separate.SeparationSettings(), known).info.name == 'spectral'\n"
        "stage.warm_up()\n"
        "print([name for name in ('torch', 'demucs', 'openvino', 'onnxruntime', 'onnx', 'safetensors')"
        " if name in sys.modules])\n"
    )
    environment = {"OUTBOARD_MODELS": "/nowhere", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "[]"


def test_a_fraction_survives_the_metadata(tmp_path: Path) -> None:
    """The window's length is a fraction of seconds, exactly."""
    path = tmp_path / "a.safetensors"
    network.save(network.seeded(FOUR_SOURCES, 0, network.TINY), path)
    assert network.load(path, FOUR_SOURCES).segment == Fraction(39, 5)
