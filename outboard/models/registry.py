"""The models that Outboard knows by name: where their weights are published, under which licence, and what they need.

Nothing here is peculiar to one network: a model is a stage, a licence and files. Each file has the name under which it
lies in the model's folder, the address where it is published, and what is known beforehand of its digest: files of the
Demucs family carry the first eight hexadecimal digits of their SHA-256 in their names (``955717e8-8726e21a.th``:
signature and digest). What no name vouches for is pinned as it was at the first pull, which later pulls are held to.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from outboard.errors import NotFound
from outboard.models.audiosr.selection import NEEDED


class ModelSettings(BaseSettings):
    """Where weights lie, and where they come from."""

    model_config = SettingsConfigDict(env_prefix="OUTBOARD_", frozen=True)

    models: Path = Field(default=Path.home() / ".local" / "share" / "outboard" / "models")
    """Folder with one folder per model."""
    models_mirror: str = ""
    """Address of a folder that holds the published files under their published names, instead of the publishers'."""


@dataclass(frozen=True)
class WeightsFile:
    """One file of a model.

    Attributes:
        name: relative to the model's folder.
        url: of what is published: the file itself, the checkpoint that it is made of, or an archive that holds it.
        digits: first hexadecimal digits of the published file's SHA-256; empty where nobody says.
        member: the file's name inside the published archive; empty where there is none.
        prefixes: of the arrays that are kept of what a training wrote; none: the published file is something else.
        size_bytes: about how much is fetched.
    """

    name: str
    url: str
    digits: str = ""
    member: str = ""
    prefixes: tuple[str, ...] = ()
    size_bytes: int = 0

    @property
    def published_name(self) -> str:
        """Last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Model:
    """A published model.

    Attributes:
        name: on the command line and in requests.
        stage: that it serves.
        licence: of weights and code.
        needs: what it takes to run it, for a person.
        packages: that must be importable to run it.
        files: of its folder.
    """

    name: str
    stage: str
    licence: str
    needs: str
    packages: tuple[str, ...]
    files: tuple[WeightsFile, ...]

    @property
    def size_bytes(self) -> int:
        """About how much is fetched; files of one archive are fetched once."""
        return sum({file.url: file.size_bytes for file in self.files}.values())


APART = {"audiosr": "--no-deps audiosr==0.0.7"}
"""Packages whose own pins cannot be met beside this program's: installed by themselves, without what they ask for."""

_DEMUCS = "https://dl.fbaipublicfiles.com/demucs/hybrid_transformer/"
_DEMUCS_PACKAGES = ("torch", "demucs", "safetensors")
_DEEP_FILTER = "https://github.com/Rikorose/DeepFilterNet/raw/main/models/DeepFilterNet3.zip"
_HUB = "https://huggingface.co/"


def _demucs(published_name: str, size_bytes: int) -> WeightsFile:
    signature, _, digits = published_name.removesuffix(".th").partition("-")
    return WeightsFile(f"{signature}.safetensors", _DEMUCS + published_name, digits, size_bytes=size_bytes)


def _audiosr(name: str, repository: str) -> Model:
    url = f"{_HUB}{repository}/resolve/main/pytorch_model.bin"
    file = WeightsFile("audiosr.safetensors", url, prefixes=NEEDED, size_bytes=6_200_000_000)
    needs = "the models install and a GPU with 8 GB; 9 GB of disk while it is fetched, 3 GB after it"
    return Model(name, "restore", "MIT", needs, ("torch", "audiosr", "safetensors"), (file,))


_ALL = (
    Model(
        "htdemucs", "separate", "MIT", "the models install, 2 GB of memory; a GPU helps", _DEMUCS_PACKAGES,
        (_demucs("955717e8-8726e21a.th", 84_000_000),),
    ),
    Model(
        "htdemucs_ft", "separate", "MIT", "the models install, 4 GB of memory; a GPU helps", _DEMUCS_PACKAGES,
        (
            _demucs("f7e0c4bc-ba3fe64a.th", 84_000_000), _demucs("d12395a8-e57c48e6.th", 84_000_000),
            _demucs("92cfc3b6-ef3bcb9c.th", 84_000_000), _demucs("04573f0d-f3cf25b2.th", 84_000_000),
        ),
    ),
    Model(
        "htdemucs_6s", "separate", "MIT", "the models install, 2 GB of memory; a GPU helps", _DEMUCS_PACKAGES,
        (_demucs("5c90dfd2-34c22ccb.th", 55_000_000),),
    ),
    Model(
        "deepfilternet3", "restore", "MIT or Apache-2.0", "the models install, 1 GB of memory", ("torch",),
        tuple(
            WeightsFile(name, _DEEP_FILTER, member=f"DeepFilterNet3/{name}", size_bytes=8_000_000)
            for name in ("config.ini", "checkpoints/model_120.ckpt.best")
        ),
    ),
    _audiosr("audiosr", "haoheliu/audiosr_basic"), _audiosr("audiosr_speech", "haoheliu/audiosr_speech"),
)  # fmt: skip
MODELS: Mapping[str, Model] = {model.name: model for model in _ALL}
"""Sources: facebookresearch/demucs (remote/files.txt), Rikorose/DeepFilterNet, haoheliu/audiosr_basic. Sizes are
rough."""


def find(name: str) -> Model:
    """A model by its name.

    Raises:
        NotFound: the names there are stand in the text.
    """
    if name not in MODELS:
        raise NotFound(f"there is no model {name!r}: there are {', '.join(MODELS)}", field="name")
    return MODELS[name]


def missing_packages(model: Model) -> tuple[str, ...]:
    """What must be installed before the model can run here."""
    return tuple(name for name in model.packages if importlib.util.find_spec(name) is None)


def install_hint(missing: tuple[str, ...]) -> str:
    """One sentence that says how to get missing packages."""
    by_pip = [f"`pip install {APART[name]}`" for name in missing if name in APART]
    if len(by_pip) < len(missing):
        by_pip.insert(0, "`pip install 'outboard[models]'`")
    return f"{', '.join(missing)} not installed here: `make models`, or {' and '.join(by_pip)}"
