"""Which backend computes a network: measured on this machine, kept, told, and part of what results are found by."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from outboard.audio.reporting import EngineInfo
from outboard.cli.app import app
from outboard.errors import FailedPrecondition, InvalidInput
from outboard.models import local
from outboard.models.htdemucs import choice
from outboard.models.htdemucs.backends import (
    ONNXRUNTIME,
    OPENVINO,
    TORCH,
    Arithmetic,
    Branches,
    Core,
    installed,
    load_core,
)
from outboard.models.htdemucs.variants import VARIANTS, Variant
from outboard.models.registry import find
from outboard.rpc.convert import to_message
from outboard.settings import Settings
from outboard.v1 import audio_pb2
from services.orchestrator.results import result_prefix
from services.separator import deployment
from tests.tiny_models import SHORT, write_models

MODEL = "htdemucs"
BY_OPENVINO, BY_ONNXRUNTIME, BY_TORCH = (Arithmetic(each, "cpu", "float32") for each in (OPENVINO, ONNXRUNTIME, TORCH))
_ABSENT = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {absent} else found(name, *rest)
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models that the settings name, with tiny weights of one."""
    monkeypatch.setenv("OUTBOARD_MODELS", str(tmp_path))
    write_models(tmp_path, (MODEL,), SHORT)
    return tmp_path


def taking(monkeypatch: pytest.MonkeyPatch, seconds: Mapping[str, float | None]) -> list[str]:
    """Has each backend take so long, or fail; the backends that were measured."""
    measured: list[str] = []

    def window_seconds(variant: object, how: Arithmetic, root: Path | None) -> float | None:
        measured.append(how.backend)
        return seconds[how.backend]

    monkeypatch.setattr(choice, "_window_seconds", window_seconds)
    monkeypatch.setattr(choice, "exported_core", lambda variant, root=None: Path("export.onnx"))
    return measured


def listed() -> EngineInfo:
    return deployment.engines(Settings())[MODEL].info


def command(*arguments: str) -> dict[str, object]:
    result = CliRunner().invoke(app, ["models", *arguments, "--json"])
    assert result.exception is None, result.exception
    return dict(json.loads(result.stdout))


def test_a_choice_stays_until_the_networks_are_exported_anew(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pull keeps to it whatever would be faster today; `models export` measures again."""
    measured = taking(monkeypatch, {OPENVINO: 2.0, ONNXRUNTIME: 1.0, TORCH: 3.0})
    command("pull", MODEL)
    assert {choice.arithmetic(MODEL, speed) for speed in ("balanced", "fast")} == {BY_ONNXRUNTIME}
    assert choice.arithmetic(MODEL, "exact") == BY_TORCH
    assert set(measured) == {OPENVINO, ONNXRUNTIME, TORCH}
    measured[:] = []
    taking(monkeypatch, {OPENVINO: 1.0, ONNXRUNTIME: 2.0, TORCH: 3.0})
    command("pull", MODEL)
    assert not measured
    assert choice.arithmetic(MODEL, "balanced") == BY_ONNXRUNTIME
    assert str(command("export", MODEL)["backend"]).startswith("openvino float32 (a window: openvino float32 1.00 s")
    assert choice.arithmetic(MODEL, "balanced") == BY_OPENVINO


def test_results_of_one_backend_never_serve_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a separation is found by changes with the backend, of either speed, and comes back with it."""
    names = []
    for seconds in ({ONNXRUNTIME: 1.0}, {OPENVINO: 1.0}, {TORCH: 1.0}, {ONNXRUNTIME: 1.0}):
        taking(monkeypatch, {**dict.fromkeys((OPENVINO, ONNXRUNTIME, TORCH), None), **seconds})
        choice.prepare(find(MODEL))
        info = listed()
        assert info.available
        names.append(result_prefix("t", "separate", [to_message(info, audio_pb2.EngineInfo)], {}, ["song"]))
    assert len(set(names)) == 3
    assert names[0] == names[3]
    known = choice.stored(MODEL)
    assert known is not None
    choice._store(replace(known, chosen={"balanced": BY_ONNXRUNTIME, "fast": BY_OPENVINO}), MODEL, None)
    assert listed().backend == "onnxruntime, openvino when fast"


def test_what_is_told_is_what_computes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deployment of a song is by the chosen backend, and one process loads each only once."""
    taking(monkeypatch, {OPENVINO: 2.0, ONNXRUNTIME: 1.0, TORCH: 3.0})
    choice.prepare(find(MODEL))
    deployment._inference.cache_clear()
    balanced, fast = deployment._local(MODEL, "balanced"), deployment._local(MODEL, "fast")
    assert (balanced.backend, balanced.device, balanced.precision) == ("onnxruntime", "cpu", "float32")
    assert balanced.infer == fast.infer
    assert deployment._local(MODEL, "exact").backend == "torch"
    deployment._inference.cache_clear()


def test_a_choice_holds_for_the_processor_it_was_measured_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder copied from another machine: the preferred one computes, the list says so, and a pull measures."""
    taking(monkeypatch, {OPENVINO: 2.0, ONNXRUNTIME: 1.0, TORCH: 3.0})
    choice.prepare(find(MODEL))
    known = choice.stored(MODEL)
    assert known is not None
    choice._store(replace(known, processor="another"), MODEL, None)
    assert choice.arithmetic(MODEL, "balanced") == BY_OPENVINO
    assert "measured on another processor: `outboard models export htdemucs`" in choice.described(MODEL)
    choice.prepare(find(MODEL), anew=False)
    assert choice.arithmetic(MODEL, "balanced") == BY_ONNXRUNTIME


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2}', '{"version": 1, "window_seconds": [], "chosen": {}}'])
def test_a_choice_that_cannot_be_read_is_none(root: Path, text: str) -> None:
    """The preferred backend computes, and the list asks to measure."""
    folder = root / MODEL / "exports"
    folder.mkdir()
    (folder / "backends.json").write_text(text)
    assert choice.stored(MODEL) is None
    assert choice.arithmetic(MODEL, "balanced") == BY_OPENVINO
    assert "not measured: `outboard models export htdemucs`" in choice.described(MODEL)


def test_noise_of_the_timing_decides_nothing() -> None:
    """Of those that are equally fast within five per cent the preferred one is taken; a failed one never."""
    usable = (BY_OPENVINO, BY_ONNXRUNTIME, BY_TORCH)
    assert choice.fastest(usable, {BY_OPENVINO: 1.0, BY_ONNXRUNTIME: 0.96, BY_TORCH: 2.0}) == BY_OPENVINO
    assert choice.fastest(usable, {BY_OPENVINO: 1.0, BY_ONNXRUNTIME: 0.94, BY_TORCH: 2.0}) == BY_ONNXRUNTIME
    assert choice.fastest(usable, {BY_TORCH: 2.0}) == BY_TORCH
    with pytest.raises(FailedPrecondition, match="no backend could compute") as error:
        choice.fastest(usable, {})
    assert error.value.reason == "ENGINE_UNAVAILABLE"


def test_a_backend_that_cannot_compute_is_left_out(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Measured in a process of its own, one that ends there is told in the log with its last words."""
    wrong = Arithmetic("magic", "cpu", "float32")
    assert choice._window_seconds(VARIANTS[MODEL], wrong, root) is None
    assert "htdemucs could not be measured by magic float32: KeyError: 'magic'" in caplog.text


def test_a_machine_with_torch_alone_says_so(root: Path, tmp_path: Path) -> None:
    """Without OpenVINO and ONNX Runtime the engine is there, computed by torch: no export is made, nothing measured
    against nothing, and list and engine name it."""
    (tmp_path / "sitecustomize.py").write_text(_ABSENT.format(absent=["openvino", "onnxruntime"]))
    program = (
        "from services.separator.deployment import engines\n"
        "from outboard.settings import Settings\n"
        "from outboard.models.htdemucs.choice import described\n"
        "info = engines(Settings())['htdemucs'].info\n"
        "print(info.available, info.backend, info.precision, '|', described('htdemucs'))\n"
    )
    path = os.pathsep.join(filter(None, (str(tmp_path), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "True torch float32 | torch float32 (the only one installed)"


def test_jobs_never_compute_more_than_one_window_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every window has all cores: whatever is under way in a process, by two inferences here, one window is computed at
    a time, and each of them loads a network once."""
    loaded: list[Arithmetic] = []
    computing: list[int] = [0]
    most: list[int] = [0]

    def load(variant: Variant, how: Arithmetic, root: Path | None) -> tuple[Core, int]:
        core, frames = load_core(variant, how, root)
        loaded.append(how)

        def compute(mix: NDArray[np.float32], spectrogram: NDArray[np.float32]) -> Branches:
            computing[0] += 1
            most[0] = max(most[0], computing[0])
            branches = core(mix, spectrogram)
            computing[0] -= 1
            return branches

        return compute, frames

    monkeypatch.setattr(local, "load_core", load)
    inferences = [local.LocalInference(BY_TORCH, root) for _ in range(2)]
    mix = np.zeros((1, 2, 44_100), np.float32)
    futures = [inferences[i % 2].infer(MODEL, {"mix": mix}) for i in range(12)]
    assert all(future.result()["stems"].shape == (1, 4, 2, 44_100) for future in futures)
    for inference in inferences:
        inference.close()
    assert most == [1]
    assert len(loaded) == 2


def test_only_separation_networks_are_exported(root: Path) -> None:
    """Another model's name is refused with those that are."""
    result = CliRunner().invoke(app, ["models", "export", "deepfilternet3"])
    assert isinstance(result.exception, InvalidInput)
    assert "htdemucs, htdemucs_ft, htdemucs_6s" in str(result.exception)


def test_nothing_reports_its_use_to_its_makers(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's telemetry, which forks a process in a thread of ours to send what was done, is not installed; ONNX
    Runtime is a version that has none yet, and would be told to keep still."""
    assert set(installed()) == {OPENVINO, ONNXRUNTIME, TORCH}
    assert importlib.util.find_spec("openvino_telemetry") is None
    assert tuple(map(int, version("onnxruntime").split(".")[:2])) < (1, 29)
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    (root / MODEL / f"{VARIANTS[MODEL].signature}.safetensors").unlink()
    with pytest.raises(FailedPrecondition, match="are not here"):
        load_core(VARIANTS[MODEL], BY_ONNXRUNTIME, root)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
