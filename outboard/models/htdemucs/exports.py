"""The exported cores: made once, stored beside the weights, found by the weights' digest.

    MODELS/htdemucs_ft/exports/04573f0d-vocals-1a2b3c4d5e6f7788-2.onnx

A file is named after the network, the sources it keeps, the digest of its weights and the version of the export, so a
change of any of them makes a new one, which takes the old one's place. The export runs in a process of its own: torch,
which only it needs, would otherwise stay in the memory of the service.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from pathlib import Path

from outboard.errors import FailedPrecondition
from outboard.models.htdemucs.variants import Variant
from outboard.models.registry import find, install_hint
from outboard.models.weights import WeightsFolder
from outboard.models.weights_files import sha256

_log = logging.getLogger(__name__)

_VERSION = 2
_DIGITS = 16


def exports_folder(model: str, root: Path | None = None) -> Path:
    """Where a model's exports lie, and what is known of them."""
    return WeightsFolder(find(model), root).path / "exports"


def exported_core(variant: Variant, root: Path | None = None) -> Path:
    """The ONNX file of one network's core, made if it is not there yet (half a minute).

    Raises:
        FailedPrecondition: the weights are not usable (:meth:`outboard.models.weights.WeightsFolder.require`), or
            ENGINE_UNAVAILABLE when torch or demucs are not installed.
    """
    folder = WeightsFolder(find(variant.model), root)
    weights = folder.require(f"{variant.signature}.safetensors")
    digits = sha256(weights)[:_DIGITS]
    network = f"{variant.signature}-{'-'.join(variant.kept)}"
    path = exports_folder(variant.model, root) / f"{network}-{digits}-{_VERSION}.onnx"
    if not path.is_file():
        _check_writable(path.parent, variant.model)
        _log.info("exporting %s for this machine's processor, once: half a minute", variant.name)
        _export_apart(weights, variant, path)
        _remove_others(path, network)
    return path


def _check_writable(folder: Path, model: str) -> None:
    """Weights may lie where nobody writes, on a volume of a container say."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FailedPrecondition(
            f"the networks of {model} have to be exported once beside its weights, which cannot be written to "
            f"({error.strerror}): run `outboard models export {model}` where they can",
            reason="ENGINE_UNAVAILABLE",
        ) from error


def _remove_others(path: Path, network: str) -> None:
    """Exports of former weights, or by former versions: about 170 MB each, that nobody would look at again."""
    for other in path.parent.glob("*.onnx"):
        if other != path and other.stem.rsplit("-", 2)[0] == network:
            other.unlink(missing_ok=True)  # another process may be at it too; who has it open keeps it


def _export_apart(weights: Path, variant: Variant, target: Path) -> None:
    command = [sys.executable, "-m", "outboard.models.htdemucs.export", str(weights), variant.name, str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return
    last = (ended.stderr.strip().splitlines() or ["no word why"])[-1]
    if "ModuleNotFoundError" in last:
        raise FailedPrecondition(install_hint((last.rpartition(" ")[2].strip("'"),)), reason="ENGINE_UNAVAILABLE")
    reason, mark, text = last.partition(": ")
    known = mark and reason.startswith("MODEL_")
    raise FailedPrecondition(
        text if known else f"the export of {variant.name} failed: {last}",
        reason=reason if known else "ENGINE_UNAVAILABLE",
    )
