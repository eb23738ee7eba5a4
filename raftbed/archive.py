"""Archives for hosts: tar files that depend on names and contents only, named by their SHA-256."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bundle:
    """An archive to be unpacked on hosts.

    Attributes:
        hash: SHA-256 of the archive, in hexadecimal; its name on the hosts.
        archive: the bytes of a gzip-compressed tar archive.
    """

    hash: str
    archive: bytes


def make_archive(files: Mapping[str, bytes]) -> Bundle:
    """A tar archive that depends on names and contents only."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size = len(files[name])
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    archive = gzip.compress(raw.getvalue(), compresslevel=6, mtime=0)
    return Bundle(hashlib.sha256(archive).hexdigest(), archive)
