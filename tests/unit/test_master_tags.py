"""Tags of a master: those that files can hold, and no others."""

from __future__ import annotations

import pytest

from outboard.audio.files.tags import VORBIS_NAMES
from outboard.errors import InvalidInput
from outboard.v1 import master_service_pb2
from services.master.servicer import _tags


def test_every_known_tag_is_taken() -> None:
    """Each name of the contract's list is one that the encoders know."""
    text = dict.fromkeys(VORBIS_NAMES, "x")
    assert _tags(master_service_pb2.MasterConfig(tags=text)).text == text


@pytest.mark.parametrize("name", ["../../etc/passwd", "encoder", "TITLE", "", "a=b\n"])
def test_unknown_tag_is_refused(name: str) -> None:
    """A name that no file could hold is refused with what there is, instead of failing while a FLAC file is written."""
    with pytest.raises(InvalidInput, match=r"there is no tag .* title, artist") as caught:
        _tags(master_service_pb2.MasterConfig(tags={name: "x"}))
    assert caught.value.violations[0].field == "config.tags"
