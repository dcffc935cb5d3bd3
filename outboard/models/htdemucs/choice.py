"""Which backend computes a model at which speed: on a CPU the one that was measured to be the fastest here.

``outboard models export`` (and ``pull``, the first time) has every backend that is installed compute a window and keeps
the figures and the choice beside the exports:

    MODELS/htdemucs_ft/exports/backends.json

A choice stays until the networks are exported anew by that command, since another backend rounds in another way and
stored results are found by it. It holds for the processor that it was measured on: in a folder that was copied from
another machine, and where nothing was measured, the first of the installed ones serves, in the order in which they
usually finish. Nothing is measured while a song waits.

=========  =====================================================================  ====================
speed      on a CPU                                                               to upstream, SNR
=========  =====================================================================  ====================
exact      torch, float32                                                         at least 100 dB
balanced   OpenVINO, ONNX Runtime or torch, float32                               at least 60 dB
fast       the same, or OpenVINO in bfloat16 where the processor computes it      at least 35 dB
=========  =====================================================================  ====================

With a CUDA device torch computes there at every speed: float32 when exact, TF32 when balanced, float16 when fast.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from outboard.errors import FailedPrecondition
from outboard.models.devices import has_cuda, processor, threads
from outboard.models.htdemucs.backends import OPENVINO, TORCH, Arithmetic, computes_bfloat16, installed
from outboard.models.htdemucs.exports import exported_core, exports_folder
from outboard.models.htdemucs.variants import Variant, variants_of
from outboard.models.registry import Model
from outboard.models.weights_files import replacing

SPEEDS = ("exact", "balanced", "fast")
_MEASURED_SPEEDS = ("balanced", "fast")
_NAME = "backends.json"
_VERSION = 1
# Timings differ by some percent from run to run: only what is clearly faster takes the place of what comes before it.
_CLEARLY = 0.95
_LONGEST_SECONDS = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """What was measured of a model, and chosen.

    Attributes:
        processor: that it was measured on.
        threads: that computed.
        window_seconds: of one window, by each arithmetic that could be measured.
        chosen: by speed.
    """

    processor: str
    threads: int
    window_seconds: Mapping[Arithmetic, float]
    chosen: Mapping[str, Arithmetic]


def arithmetic(model: str, speed: str, root: Path | None = None) -> Arithmetic:
    """What this machine uses for a model of the family at a speed.

    Args:
        model: of the registry.
        speed: one of `SPEEDS`.
        root: folder with one folder per model; that of the settings unless given.
    """
    if _has_cuda():
        return Arithmetic(TORCH, "cuda", {"exact": "float32", "balanced": "tf32", "fast": "float16"}[speed])
    if speed == "exact":
        return Arithmetic(TORCH, "cpu", "float32")
    usable = candidates(speed)
    known = stored(model, root)
    if known and known.processor == processor() and known.chosen[speed] in usable:
        return known.chosen[speed]
    return usable[0]


def candidates(speed: str) -> tuple[Arithmetic, ...]:
    """What can compute on this machine's processor at a speed, the preferred first."""
    exactly = tuple(Arithmetic(backend, "cpu", "float32") for backend in installed())
    return (Arithmetic(OPENVINO, "cpu", "bfloat16"), *exactly) if speed == "fast" and _has_bfloat16() else exactly


def prepare(model: Model, root: Path | None = None, *, anew: bool = True) -> tuple[Path, ...]:
    """Measures and chooses, and makes the exports that the choice takes.

    Args:
        model: of the HTDemucs family.
        root: folder with one folder per model; that of the settings unless given.
        anew: measure even where a choice for this processor is there.

    Returns:
        The exports.

    Raises:
        FailedPrecondition: as in :func:`outboard.models.htdemucs.exports.exported_core`; ENGINE_UNAVAILABLE where no
            backend could compute.
    """
    if not _has_cuda():
        known = stored(model.name, root)
        if anew or known is None or known.processor != processor():
            _store(_measured(variants_of(model.name)[0], root), model.name, root)
    if not any(arithmetic(model.name, speed, root).takes_export for speed in _MEASURED_SPEEDS):
        return ()
    return tuple(exported_core(variant, root) for variant in variants_of(model.name))


def described(model: str, root: Path | None = None) -> str:
    """What computes a model here, and why, for a person."""
    if _has_cuda():
        return "torch on CUDA"
    balanced, fast = (arithmetic(model, speed, root) for speed in _MEASURED_SPEEDS)
    text = _named(balanced) if fast == balanced else f"{_named(balanced)}, {_named(fast)} when fast"
    if len(set(candidates("fast"))) == 1:
        return f"{text} (the only one installed)"
    known = stored(model, root)
    if known is None:
        return f"{text} (not measured: `outboard models export {model}`)"
    if known.processor != processor():
        return f"{text} (measured on another processor: `outboard models export {model}`)"
    if balanced != known.chosen["balanced"] or fast != known.chosen["fast"]:
        return f"{text} (what was chosen is not installed any more: `outboard models export {model}`)"
    figures = ", ".join(f"{_named(how)} {seconds:.2f} s" for how, seconds in known.window_seconds.items())
    return f"{text} (a window: {figures})"


def stored(model: str, root: Path | None = None) -> Choice | None:
    """What is kept beside a model's exports; nothing where it cannot be read."""
    try:
        kept = json.loads((exports_folder(model, root) / _NAME).read_text())
        if kept["version"] != _VERSION:
            return None
        seconds = {Arithmetic(**item["by"]): float(item["seconds"]) for item in kept["window_seconds"]}
        chosen = {speed: Arithmetic(**kept["chosen"][speed]) for speed in _MEASURED_SPEEDS}
        return Choice(str(kept["processor"]), int(kept["threads"]), seconds, chosen)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _store(choice: Choice, model: str, root: Path | None) -> None:
    kept = {
        "version": _VERSION,
        "processor": choice.processor,
        "threads": choice.threads,
        "window_seconds": [{"by": asdict(how), "seconds": round(s, 4)} for how, s in choice.window_seconds.items()],
        "chosen": {speed: asdict(how) for speed, how in choice.chosen.items()},
    }
    with replacing(exports_folder(model, root) / _NAME) as path:
        path.write_text(json.dumps(kept, indent=2) + "\n")


def _measured(variant: Variant, root: Path | None) -> Choice:
    """Times one network: those of a model are of one size."""
    wanted = dict.fromkeys(how for speed in _MEASURED_SPEEDS for how in candidates(speed))
    if any(how.takes_export for how in wanted):
        exports_folder(variant.model, root).mkdir(parents=True, exist_ok=True)
        exported_core(variant, root)
    seconds: dict[Arithmetic, float] = {}
    for how in wanted:
        taken = _window_seconds(variant, how, root)
        if taken is not None:
            seconds[how] = taken
    chosen = {speed: fastest(candidates(speed), seconds) for speed in _MEASURED_SPEEDS}
    return Choice(processor(), threads(), seconds, chosen)


def fastest(usable: Iterable[Arithmetic], seconds: Mapping[Arithmetic, float]) -> Arithmetic:
    """The first of those that were measured, unless a later one is clearly faster.

    Raises:
        FailedPrecondition: ENGINE_UNAVAILABLE: none was.
    """
    best: Arithmetic | None = None
    for how in usable:
        if how in seconds and (best is None or seconds[how] < _CLEARLY * seconds[best]):
            best = how
    if best is None:
        raise FailedPrecondition("no backend could compute a window here: see the log", reason="ENGINE_UNAVAILABLE")
    return best


def _window_seconds(variant: Variant, how: Arithmetic, root: Path | None) -> float | None:
    """Measured in a process of its own: no backend finds another one's threads or memory there."""
    command = [sys.executable, "-m", "outboard.models.htdemucs.timing", variant.name, how.backend, how.precision]
    environment = {**os.environ, "OUTBOARD_MODELS": str(exports_folder(variant.model, root).parents[1])}
    _log.info("measuring how long a window of %s takes by %s", variant.name, _named(how))
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=True, env=environment, timeout=_LONGEST_SECONDS
        )
        return float(ended.stdout.split()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        told = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
        _log.warning("%s could not be measured by %s: %s", variant.name, _named(how), told[-1] if told else error)
        return None


def _named(how: Arithmetic) -> str:
    return f"{how.backend} {how.precision}"


_has_cuda = functools.cache(has_cuda)
_has_bfloat16 = functools.cache(computes_bfloat16)
