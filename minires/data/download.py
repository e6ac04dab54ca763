"""Fetch a file from the network so that a half or a wrong one can never be taken for it.

The bytes go to ``NAME.part``; an interrupted download continues there. Only when size and SHA-256 are right is the file
renamed, which is atomic. From an archive only files that were asked for by name are unpacked, each to a place chosen
here, so nothing an archive contains can be written anywhere else.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from minires.errors import DataError

__all__ = ["download", "extract"]

BLOCK = 1 << 18


def download(url: str, path: Path, *, sha256: str, size: int, timeout: float = 30.0) -> None:
    """Fetch ``url`` to ``path``; a right file that is there already is kept.

    Args:
        url: where it is.
        path: where it goes; its folder is created.
        sha256: the checksum in hexadecimal.
        size: length in bytes.
        timeout: seconds without an answer after which to give up.

    Raises:
        DataError: the server does not answer or breaks off, or what came has another size or checksum.
    """
    if path.is_file() and path.stat().st_size == size and _sha256(path) == sha256:
        return
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and part.stat().st_size > size:
            part.unlink()
        if not part.exists() or part.stat().st_size < size:
            _fetch(url, part, size, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(f"cannot download {url} to {path}: {reason}; run it again to continue") from error
    if part.stat().st_size < size:
        got = part.stat().st_size
        raise DataError(f"{part}: the download of {url} broke off at {got} of {size} bytes; run it again to continue")
    found = _sha256(part)
    if part.stat().st_size != size or found != sha256:
        part.unlink()  # it can not be continued into a right file
        raise DataError(f"{url}: wrong content, expected {size} bytes with SHA-256 {sha256}, got {found}")
    os.replace(part, path)


def _fetch(url: str, part: Path, size: int, timeout: float) -> None:
    """Append what is missing to ``part``, or start again where the server can only send the whole."""
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        have = have if answer.status == http.client.PARTIAL_CONTENT else 0
        bar = tqdm(total=size, initial=have, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1], leave=False)
        with bar, part.open("ab" if have else "wb") as file:
            # Never more than one byte too many: a server that sends without end is cut off.
            while have <= size and (block := answer.read(min(BLOCK, size + 1 - have))):
                have += file.write(block)
                bar.update(len(block))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, folder: str, names: Iterable[str], root: Path) -> None:
    """Unpack the files ``folder/name`` of a ``.tar.gz`` into ``root/folder``, and nothing else.

    Raises:
        DataError: the archive cannot be read, or lacks one of the files.
    """
    missing = set(names)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix(f"{folder}/")
                if name in missing and member.name == f"{folder}/{name}" and member.isfile():
                    _write(tar.extractfile(member), root / folder / name)
                    missing.discard(name)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive}: cannot be unpacked ({error})") from error
    if missing:
        raise DataError(f"{archive}: expected {folder}/{min(missing)} in it, which is missing")


def _write(source: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        while block := source.read(BLOCK):
            file.write(block)
    os.replace(part, path)
