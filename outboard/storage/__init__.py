"""Where artifacts live: one small protocol, and a folder on disk that keeps it.

Keys look like ``TENANT/more/parts``. An object is written once: the first stored content wins, and a later writer of
the same key is told so. An object appears whole or not at all (written beside, flushed to the disk, then linked under
its name), whatever kills the writer.

What fails speaks the same for every kind of store: STORAGE_FULL when there is no room, STORAGE_UNAVAILABLE when the
store does not answer, NOT_FOUND for an absent object, NAME_INVALID for a key that is not well-formed.
"""

from outboard.storage.folder import FolderStore
from outboard.storage.local_files import FolderWriter
from outboard.storage.protocol import (
    CHUNK_BYTES,
    ObjectInfo,
    ObjectStore,
    ObjectWriter,
    check_key,
    get,
    put,
)

__all__ = [
    "CHUNK_BYTES",
    "FolderStore",
    "FolderWriter",
    "ObjectInfo",
    "ObjectStore",
    "ObjectWriter",
    "check_key",
    "get",
    "put",
]
