"""The weights that are on this machine: fetched or copied by hand, checked, pinned, and ready to be loaded.

A model's folder holds its files and ``weights.lock.json``, where the full SHA-256 of each file stands from the first
time that it was verified: of the published file, and of the safetensors file made from it, since that is what is loaded
ever after. A published checkpoint that somebody copied into the folder is verified and converted on the spot. Files
that nothing vouches for (no digits in a published name, no pin) are used, and shown as unverified.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from outboard.errors import FailedPrecondition
from outboard.models.download import Progress, fetch, partial_path
from outboard.models.registry import Model, ModelSettings, WeightsFile, install_hint, missing_packages
from outboard.models.weights_files import check_complete, convert, convert_training, extract, replacing, sha256

LOCK_NAME = "weights.lock.json"


@dataclass(frozen=True)
class Pin:
    """What a file was when it was verified: digests of what was published and of what lies in the folder."""

    published_sha256: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Presence:
    """What is here of one model: ``state`` is "absent", "incomplete", "present" or "damaged"; ``verified`` says whether
    every file has been checked against a published or pinned digest.
    """

    state: str
    verified: bool
    problem: str = ""


class WeightsFolder:
    """The folder of one model.

    Args:
        model: of the registry.
        root: folder with one folder per model; that of the settings unless given.
    """

    def __init__(self, model: Model, root: Path | None = None) -> None:
        self.model = model
        self.path = (root or ModelSettings().models) / model.name

    def presence(self) -> Presence:
        """What is here, without changing anything."""
        here = [file for file in self.model.files if self._candidate(file)]
        if not here:
            return Presence("absent", False)
        if len(here) < len(self.model.files):
            missing = len(self.model.files) - len(here)
            text = f"{missing} of its {len(self.model.files)} files {'is' if missing == 1 else 'are'} missing"
            return Presence("incomplete", False, text)
        try:
            with self._telling():
                unverified = [file for file in self.model.files if not self._verified(file)]
        except FailedPrecondition as error:
            return Presence("damaged", False, error.message)
        return Presence("present", not unverified)

    def require(self, name: str) -> Path:
        """The checked path of one file, converted first where a published checkpoint lies there.

        Raises:
            FailedPrecondition: MODEL_WEIGHTS_MISSING with the command that fetches them; MODEL_WEIGHTS_TRUNCATED,
                MODEL_WEIGHTS_DIGEST_MISMATCH, MODEL_WEIGHTS_OF_OTHER_MODEL, MODEL_WEIGHTS_UNSAFE,
                MODEL_WEIGHTS_INVALID.
        """
        file = next(file for file in self.model.files if file.name == name)
        found = self._candidate(file)
        if found is None:
            some = "all " if any(self._candidate(other) for other in self.model.files) else ""
            command = f"`outboard models pull {self.model.name}` fetches them"
            raise FailedPrecondition(
                f"the weights of {self.model.name} are not {some}here: {command}",
                reason="MODEL_WEIGHTS_MISSING",
            )
        with self._telling():
            self._verified(file)
            if found.name != Path(file.name).name:
                self._install(file, found)
        return self.path / file.name

    def digest(self) -> str:
        """SHA-256 over the digests of all files: what the model's results are named after. All must be here."""
        lines = []
        for file in self.model.files:
            path = self.require(file.name)
            pin = self._pins().get(file.name)
            lines.append(pin.published_sha256 if pin else sha256(path))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def pull(self, progress: Callable[[str], Progress] | None = None) -> bool:
        """Fetches what is missing or damaged, checks, converts and pins it.

        Args:
            progress: called with each published name before it is fetched; gives what is told of its bytes.

        Returns:
            Whether anything had to be fetched.

        Raises:
            FailedPrecondition: as in :meth:`require`, for what was fetched; ENGINE_UNAVAILABLE when the package that
                writes safetensors is not installed.
            NotFound, Unavailable: as in :func:`outboard.models.download.fetch`.
        """
        if any(file.name.endswith(".safetensors") for file in self.model.files):
            lacking = tuple(name for name in missing_packages(self.model) if name == "safetensors")
            if lacking:
                raise FailedPrecondition(install_hint(lacking), reason="ENGINE_UNAVAILABLE")
        fetched = False
        for file in self.model.files:
            if not self._usable(file):
                self._fetch(file, progress)
                fetched = True
        return fetched

    def _usable(self, file: WeightsFile) -> bool:
        try:
            self.require(file.name)
        except FailedPrecondition:
            return False
        return True

    def _fetch(self, file: WeightsFile, progress: Callable[[str], Progress] | None) -> None:
        mirror = ModelSettings().models_mirror
        url = f"{mirror.rstrip('/')}/{file.published_name}" if mirror else file.url
        target = self.path / file.published_name
        if not target.is_file() or not file.member:
            fetch(url, target, progress(file.published_name) if progress else lambda have, total: None)
        try:
            _check_published(file, target)
            self._install(file, target)
        except FailedPrecondition:
            # Going on from bytes that were wrong once would never end well.
            target.unlink()
            partial_path(target).unlink(missing_ok=True)
            raise
        last = not any(other.url == file.url and not self._candidate(other) for other in self.model.files)
        if last and target != self.path / file.name:
            target.unlink()

    def _install(self, file: WeightsFile, published: Path) -> None:
        """Makes the file that is loaded of the one that was published, and pins both."""
        target = self.path / file.name
        digest = sha256(published)
        pinned = self._pins().get(file.name)
        if pinned and pinned.published_sha256 != digest:
            raise _mismatch(published, "the one pinned when it was first verified")
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.member:
            extract(published, file.member, target)
        elif file.prefixes:
            convert_training(published, target, file.prefixes)
        elif published != target:
            convert(published, target)
        self._pin(file.name, Pin(digest, sha256(target), target.stat().st_size))

    def _candidate(self, file: WeightsFile) -> Path | None:
        """The file itself, or the published checkpoint that it is made of."""
        published = () if file.member else (self.path / file.published_name,)
        return next((path for path in (self.path / file.name, *published) if path.is_file()), None)

    def _verified(self, file: WeightsFile) -> bool:
        """Whether something vouches for a file that is here; raises where it is not what it should be."""
        path = self._candidate(file)
        assert path is not None
        pin = self._pins().get(file.name)
        if path.name != Path(file.name).name:
            _check_published(file, path)
            return bool(file.digits)
        if pin is None:
            check_complete(path)
            return False
        if path.stat().st_size < pin.size_bytes:
            raise FailedPrecondition(
                f"the weights file {path.name} ends too early: {path.stat().st_size} of {pin.size_bytes} bytes",
                reason="MODEL_WEIGHTS_TRUNCATED",
            )
        if sha256(path) != pin.sha256:
            raise _mismatch(path, "the one pinned when it was first verified")
        return True

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Files that cannot be opened are an error of this model and of no other. Its text has no path."""
        try:
            yield
        except OSError as error:
            raise FailedPrecondition(
                f"the weights of {self.model.name} cannot be read, or not be written where they lie: {error.strerror}",
                reason="MODEL_WEIGHTS_INVALID",
            ) from error

    def _pins(self) -> dict[str, Pin]:
        try:
            stored = json.loads((self.path / LOCK_NAME).read_text())
            return {name: Pin(**pin) for name, pin in stored["files"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise FailedPrecondition(
                f"{LOCK_NAME} of {self.model.name} cannot be read: delete it to trust the files anew",
                reason="MODEL_WEIGHTS_INVALID",
            ) from error

    def _pin(self, name: str, pin: Pin) -> None:
        pins = {**self._pins(), name: pin}
        text = json.dumps(
            {"version": 1, "files": {key: asdict(value) for key, value in sorted(pins.items())}}, indent=2
        )
        with replacing(self.path / LOCK_NAME) as path:
            path.write_text(text + "\n")


def _check_published(file: WeightsFile, path: Path) -> None:
    if not sha256(path).startswith(file.digits):
        if path.suffix == ".th" and not zipfile.is_zipfile(path):
            raise FailedPrecondition(
                f"the checkpoint {path.name} ends too early, or is none", reason="MODEL_WEIGHTS_TRUNCATED"
            )
        raise _mismatch(path, f"{file.digits}…, which its published name says")


def _mismatch(path: Path, expected: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the SHA-256 of {path.name} is {sha256(path)[:8]}…, not {expected}", reason="MODEL_WEIGHTS_DIGEST_MISMATCH"
    )
