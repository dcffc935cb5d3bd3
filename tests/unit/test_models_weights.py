"""Weights come from a real server, however it misbehaves, or from a copied folder, and are what they should be."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from demucs.hf import load_safetensors_model
from demucs.htdemucs import HTDemucs
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from outboard.cli.app import app
from outboard.errors import FailedPrecondition, NotFound, OutboardError, Unavailable
from outboard.models import registry, weights_files
from outboard.models.download import fetch, partial_path
from outboard.models.htdemucs import network
from outboard.models.registry import Model, WeightsFile
from outboard.models.weights import LOCK_NAME, WeightsFolder
from tests.file_site import Site, serving_files


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on this machine."""
    with serving_files() as served:
        yield served


def checkpoint(**changes: object) -> bytes:
    """A published checkpoint with a few tensors."""
    whole = {
        "klass": HTDemucs,
        "args": (["drums", "bass", "other", "vocals"],),
        "kwargs": {"segment": Fraction(39, 5)},
        "state": {"a": torch.arange(2000.0).half()},
        "training_args": {},
    }
    stream = io.BytesIO()
    torch.save({**whole, **changes}, stream)
    return stream.getvalue()


def published(site: Site, *contents: bytes) -> Model:
    """A model of these files, on the server under names with their digests."""
    files = []
    for number, content in enumerate(contents):
        digits = hashlib.sha256(content).hexdigest()[:8]
        name = f"sig{number}-{digits}.th"
        site.files[name] = content
        files.append(WeightsFile(f"sig{number}.safetensors", f"{site.address}/{name}", digits))
    return Model("toy", "separate", "MIT", "nothing", (), tuple(files))


def reason(error: pytest.ExceptionInfo[OutboardError]) -> str:
    return error.value.reason


def test_pulled_weights_are_converted_pinned_and_verified(site: Site, tmp_path: Path) -> None:
    """After a pull: safetensors with the same tensors, the full digest in the lock, nothing else; a second pull fetches
    nothing.
    """
    content = checkpoint()
    folder = WeightsFolder(published(site, content, checkpoint(training_args={"other": 1})), tmp_path)
    assert folder.presence().state == "absent"
    seen: list[tuple[int, int | None]] = []
    assert folder.pull(lambda name: lambda have, total: seen.append((have, total)))
    assert (folder.presence().state, folder.presence().verified) == ("present", True)
    assert sorted(path.name for path in folder.path.iterdir()) == ["sig0.safetensors", "sig1.safetensors", LOCK_NAME]
    tensor = load_file(folder.require("sig0.safetensors"))["a"]
    assert tensor.dtype == np.float16
    assert np.array_equal(tensor, np.arange(2000))
    pins = json.loads((folder.path / LOCK_NAME).read_text())["files"]
    assert pins["sig0.safetensors"]["published_sha256"] == hashlib.sha256(content).hexdigest()
    assert (len(content), len(content)) in seen
    site.ranges.clear()
    assert not folder.pull()
    assert site.ranges == []


def test_the_digest_of_a_model_is_that_of_what_was_published(site: Site, tmp_path: Path) -> None:
    """Results are named after it, so it must not depend on the machine: two pulls agree, other weights do not."""
    model = published(site, checkpoint())
    digests = []
    for name in ("a", "b"):
        folder = WeightsFolder(model, tmp_path / name)
        folder.pull()
        digests.append(folder.digest())
    other = WeightsFolder(published(site, checkpoint(training_args={"other": 1})), tmp_path / "c")
    other.pull()
    assert digests[0] == digests[1] != other.digest()


def test_a_broken_connection_is_gone_on_from(site: Site, tmp_path: Path) -> None:
    """Two breaks within one call: the rest is asked for by range, the bytes are right."""
    content = checkpoint()
    folder = WeightsFolder(published(site, content), tmp_path)
    site.break_after = [1000, 2000]
    folder.pull()
    assert site.ranges == [None, "bytes=1000-", "bytes=3000-"]
    assert folder.presence().verified


def test_an_interrupted_pull_is_gone_on_from(site: Site, tmp_path: Path) -> None:
    """What had arrived when the user pressed Ctrl-C is not fetched again."""
    content = os.urandom(3 << 20)
    site.files["file"] = content

    def stop(have: int, total: int | None) -> None:
        if have:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(f"{site.address}/file", tmp_path / "file", stop)
    arrived = partial_path(tmp_path / "file").stat().st_size
    assert 0 < arrived < len(content)
    fetch(f"{site.address}/file", tmp_path / "file", lambda have, total: None)
    assert site.ranges == [None, f"bytes={arrived}-"]
    assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_changed_meanwhile_is_fetched_anew(site: Site, tmp_path: Path) -> None:
    """Halves of two versions are never put together."""
    site.files["file"] = b"a" * 5000
    site.break_after = [1000, 0, 0, 0]
    with pytest.raises(Unavailable, match="1000 bytes are kept"):
        fetch(f"{site.address}/file", tmp_path / "file", lambda have, total: None)
    site.files["file"] = b"b" * 5000
    site.break_after = []
    fetch(f"{site.address}/file", tmp_path / "file", lambda have, total: None)
    assert (tmp_path / "file").read_bytes() == b"b" * 5000


def test_a_part_that_is_already_whole_needs_no_more(site: Site, tmp_path: Path) -> None:
    """Killed between the last byte and the renaming."""
    site.files["file"] = b"a" * 5000
    partial_path(tmp_path / "file").write_bytes(b"a" * 5000)
    fetch(f"{site.address}/file", tmp_path / "file", lambda have, total: None)
    assert (tmp_path / "file").read_bytes() == b"a" * 5000


def test_what_is_not_there_and_who_is_not_there(site: Site, tmp_path: Path) -> None:
    """404 is NOT_FOUND; nobody at the address is UNAVAILABLE."""
    with pytest.raises(NotFound):
        fetch(f"{site.address}/nothing", tmp_path / "file", lambda have, total: None)
    with pytest.raises(Unavailable):
        fetch("http://127.0.0.1:1/file", tmp_path / "file", lambda have, total: None)


def test_a_wrong_digest_is_refused_and_not_kept(site: Site, tmp_path: Path) -> None:
    """The server has other bytes than the name promises: an error, and the next pull starts from nothing."""
    model = published(site, checkpoint())
    name = model.files[0].published_name
    right = site.files[name]
    site.files[name] = checkpoint(training_args={"other": 1})
    folder = WeightsFolder(model, tmp_path)
    with pytest.raises(FailedPrecondition) as error:
        folder.pull()
    assert reason(error) == "MODEL_WEIGHTS_DIGEST_MISMATCH"
    assert folder.presence().state == "absent"
    site.files[name] = right
    folder.pull()
    assert folder.presence().verified


def test_a_hostile_checkpoint_is_refused(site: Site, tmp_path: Path) -> None:
    """Even with the digest of its name."""

    class Hostile:
        def __reduce__(self) -> object:
            return os.system, (f"touch {tmp_path}/ran",)

    with pytest.raises(FailedPrecondition) as error:
        WeightsFolder(published(site, checkpoint(training_args=Hostile())), tmp_path).pull()
    assert reason(error) == "MODEL_WEIGHTS_UNSAFE"
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_network_is_refused(site: Site, tmp_path: Path) -> None:
    """The digest is right, the class is not."""
    from demucs.hdemucs import HDemucs

    with pytest.raises(FailedPrecondition) as error:
        WeightsFolder(published(site, checkpoint(klass=HDemucs)), tmp_path).pull()
    assert reason(error) == "MODEL_WEIGHTS_OF_OTHER_MODEL"


def test_missing_weights_name_the_command(tmp_path: Path) -> None:
    """The text says what to type."""
    folder = WeightsFolder(registry.find("htdemucs_ft"), tmp_path)
    with pytest.raises(FailedPrecondition, match="`outboard models pull htdemucs_ft`") as error:
        folder.require("04573f0d.safetensors")
    assert reason(error) == "MODEL_WEIGHTS_MISSING"


def test_a_checkpoint_copied_by_hand_is_verified_and_converted(site: Site, tmp_path: Path) -> None:
    """The published file in the folder is as good as a pull, and stays where it is."""
    model = published(site, checkpoint())
    folder = WeightsFolder(model, tmp_path)
    folder.path.mkdir()
    copied = folder.path / model.files[0].published_name
    copied.write_bytes(site.files[copied.name])
    assert (folder.presence().state, folder.presence().verified) == ("present", True)
    assert folder.require("sig0.safetensors").is_file()
    assert copied.is_file()
    copied.unlink()
    assert folder.presence().verified
    assert site.ranges == []


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda content: content[:-1] + b"x", "MODEL_WEIGHTS_DIGEST_MISMATCH"),
        (lambda content: content[:500], "MODEL_WEIGHTS_TRUNCATED"),
    ],
)
@pytest.mark.parametrize("converted", [False, True])
def test_damaged_files_are_told_apart(
    site: Site, tmp_path: Path, spoil: object, expected: str, converted: bool
) -> None:
    """Changed or cut short, published or converted: each its own reason, and `models list` shows "damaged"."""
    model = published(site, checkpoint())
    folder = WeightsFolder(model, tmp_path)
    if converted:
        folder.pull()
        path = folder.require("sig0.safetensors")
        content = path.read_bytes()
    else:
        folder.path.mkdir()
        path = folder.path / model.files[0].published_name
        content = site.files[path.name]
    path.write_bytes(spoil(content))  # type: ignore[operator]
    with pytest.raises(FailedPrecondition) as error:
        folder.require("sig0.safetensors")
    assert reason(error) == expected
    assert folder.presence().state == "damaged"
    folder.path.joinpath(model.files[0].published_name).unlink(missing_ok=True)
    folder.pull()
    assert folder.presence().verified


def test_safetensors_that_nothing_vouches_for_are_used_but_unverified(site: Site, tmp_path: Path) -> None:
    """A bare file is present, not verified; cut short it is damaged, and garbage is invalid."""
    folder = WeightsFolder(published(site, checkpoint()), tmp_path)
    folder.path.mkdir()
    path = folder.path / "sig0.safetensors"
    save_file({"a": np.ones(1000, np.float32)}, path)
    assert (folder.presence().state, folder.presence().verified) == ("present", False)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FailedPrecondition) as error:
        folder.require("sig0.safetensors")
    assert reason(error) == "MODEL_WEIGHTS_TRUNCATED"
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(FailedPrecondition) as error:
        folder.require("sig0.safetensors")
    assert reason(error) == "MODEL_WEIGHTS_INVALID"


def test_some_of_the_files_are_incomplete(site: Site, tmp_path: Path) -> None:
    """A bag with some of its networks is not usable, and how many are missing is said."""
    bag = published(site, *(checkpoint(training_args={"number": number}) for number in range(3)))
    folder = WeightsFolder(bag, tmp_path)
    folder.pull()
    folder.require("sig1.safetensors").unlink()
    assert (folder.presence().state, folder.presence().problem) == ("incomplete", "1 of its 3 files is missing")
    folder.require("sig0.safetensors").unlink()
    assert folder.presence().problem == "2 of its 3 files are missing"
    with pytest.raises(FailedPrecondition, match="the weights of toy are not all here: `outboard models pull toy`"):
        folder.digest()


def test_a_folder_copied_whole_stays_verified(site: Site, tmp_path: Path) -> None:
    """The lock travels with the files."""
    model = published(site, checkpoint())
    WeightsFolder(model, tmp_path / "here").pull()
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert WeightsFolder(model, tmp_path / "there").presence().verified


def test_a_damaged_lock_is_an_error(site: Site, tmp_path: Path) -> None:
    """Nothing is trusted by accident."""
    folder = WeightsFolder(published(site, checkpoint()), tmp_path)
    folder.pull()
    (folder.path / LOCK_NAME).write_text("{")
    assert folder.presence().state == "damaged"


def test_a_folder_that_cannot_be_used_is_an_error_of_its_model_alone(site: Site, tmp_path: Path) -> None:
    """What the system refuses (here: a folder in the place of a file, both ways) is told in its words, without a path:
    by the model's list entry, and when it is asked for.
    """
    folder = WeightsFolder(published(site, checkpoint()), tmp_path)
    folder.pull()
    (folder.path / LOCK_NAME).unlink()
    (folder.path / LOCK_NAME).mkdir()
    assert (folder.presence().state, "Is a directory" in folder.presence().problem) == ("damaged", True)
    with pytest.raises(FailedPrecondition, match="cannot be read") as error:
        folder.digest()
    assert reason(error) == "MODEL_WEIGHTS_INVALID"
    assert str(tmp_path) not in error.value.message


def test_files_of_an_archive_are_taken_out_of_it(site: Site, tmp_path: Path) -> None:
    """Published in one archive, which is fetched once; pinned as they came, so that a changed archive is refused."""

    def archive(text: str) -> bytes:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as opened:
            opened.writestr("Net/config.ini", text)
            opened.writestr("Net/checkpoints/best", "weights")
        return stream.getvalue()

    site.files["Net.zip"] = archive("a")
    files = tuple(
        WeightsFile(name, f"{site.address}/Net.zip", member=f"Net/{name}")
        for name in ("config.ini", "checkpoints/best")
    )
    folder = WeightsFolder(Model("net", "restore", "MIT", "nothing", (), files), tmp_path)
    folder.pull()
    assert folder.require("checkpoints/best").read_text() == "weights"
    assert len(site.ranges) == 1
    assert not (folder.path / "Net.zip").exists()
    folder.require("config.ini").unlink()
    site.files["Net.zip"] = archive("b")
    with pytest.raises(FailedPrecondition) as error:
        folder.pull()
    assert reason(error) == "MODEL_WEIGHTS_DIGEST_MISMATCH"


def test_a_digest_is_computed_again_when_the_file_changes(tmp_path: Path) -> None:
    """The cache looks at size and time of change."""
    path = tmp_path / "a"
    path.write_bytes(b"a")
    first = weights_files.sha256(path)
    path.write_bytes(b"bb")
    assert weights_files.sha256(path) != first


def test_the_whole_way_from_a_checkpoint_to_a_network(site: Site, tmp_path: Path) -> None:
    """What upstream would save in half precision, pulled: our loader and upstream's get the network's very weights."""
    original = network.seeded(["drums", "bass", "other", "vocals"], 1, network.TINY)
    state = {name: value.half() for name, value in original.state_dict().items()}
    arguments, keywords = original._init_args_kwargs
    model = published(site, checkpoint(args=arguments, kwargs=keywords, state=state))
    folder = WeightsFolder(model, tmp_path)
    folder.pull()
    path = folder.require("sig0.safetensors")
    ours = network.load(path, original.sources).state_dict()
    upstream = load_safetensors_model(path).state_dict()
    assert list(ours) == list(upstream) == list(state)
    assert all(torch.equal(ours[name], state[name].float()) for name in state)
    assert all(torch.equal(ours[name], upstream[name]) for name in state)


def test_the_readme_and_the_list_tell_the_same_sizes() -> None:
    """What `models list` shows of a model is what README.md says has to be fetched for its engine."""
    lines = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8").splitlines()
    for name in registry.MODELS.keys() - {"audiosr_speech"}:  # which stands beside audiosr
        model = registry.MODELS[name]
        (row,) = [line for line in lines if line.startswith(f"| {model.stage} | `{name}` |")]
        megabytes = model.size_bytes / 1e6
        said = f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.0f} GB"
        assert f"weights ({said}" in row, f"{name}: {said}, but {row}"


def test_commands_list_and_pull(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`models pull` of a real name from a mirror with wrong bytes fails with the reason; `models list` shows all."""
    monkeypatch.setenv("OUTBOARD_MODELS", str(tmp_path))
    monkeypatch.setenv("OUTBOARD_MODELS_MIRROR", site.address)
    site.files["955717e8-8726e21a.th"] = checkpoint()
    result = CliRunner().invoke(app, ["models", "pull", "htdemucs", "--json"])
    assert isinstance(result.exception, FailedPrecondition)
    assert result.exception.reason == "MODEL_WEIGHTS_DIGEST_MISMATCH"
    assert isinstance(CliRunner().invoke(app, ["models", "pull", "magic"]).exception, NotFound)
    shown = CliRunner().invoke(app, ["models", "list"]).stdout
    for line in (
        "htdemucs_ft        336 MB  absent",
        "    separate; MIT; needs the models install, 4 GB of memory; a GPU helps",
        "deepfilternet3       8 MB  absent",
    ):
        assert line in shown.splitlines(), shown
    listed = json.loads(CliRunner().invoke(app, ["models", "list", "--json"]).stdout)["models"]
    assert [row["name"] for row in listed] == list(registry.MODELS)
    assert {"stage", "licence", "needs", "size_bytes", "state", "verified", "problem"} <= set(listed[0])
