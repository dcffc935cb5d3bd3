"""``python -m outboard.models.htdemucs.export WEIGHTS VARIANT TARGET``: one core as an ONNX file.

Inputs ``mix`` [1, 2, N] and ``spectrogram`` [1, 4, 2048, T], outputs ``spectrogram_branch`` [1, S, 4, 2048, T] and
``waveform_branch`` [1, S, 2, N]. Shapes are fixed: what runs the export plans its memory once.
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from pathlib import Path

import torch

from outboard.errors import OutboardError
from outboard.models.htdemucs import transform
from outboard.models.htdemucs.layers import ExportedCore
from outboard.models.htdemucs.network import Core, load, segment_frames
from outboard.models.htdemucs.variants import VARIANTS


def export(core: Core, target: Path) -> None:
    """Writes a core; the file appears when it is whole."""
    mix = torch.zeros(1, transform.CHANNELS, segment_frames(core.network))
    program = torch.onnx.export(
        core.eval(),
        (mix, transform.spectrogram(mix)),
        dynamo=True,  # the older exporter fixes the attention's batch in ways of its own
        input_names=["mix", "spectrogram"],
        output_names=["spectrogram_branch", "waveform_branch"],
        verbose=False,
    )
    assert program is not None
    written = target.with_name(f".{target.name}.{os.getpid()}")
    program.save(written)
    written.replace(target)


def main() -> int:
    """Exports what the command line names; an error's reason and text are the last line of standard error."""
    weights, name, target = sys.argv[1:]
    variant = VARIANTS[name]
    warnings.simplefilter("ignore")
    try:
        with contextlib.redirect_stdout(sys.stderr):
            export(ExportedCore(load(Path(weights), variant.sources), variant.kept), Path(target))
    except OutboardError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 1
    except OSError as error:  # without the path
        print(f"OSError: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
