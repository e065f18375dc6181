"""What a bundle is: one Python file, or a zip with `agent.py` at its top. Bytes in, checked files out.

Decides nothing about the code in it, not even whether it parses: untrusted source is compiled in the sandbox
only. Every size is counted while reading; what an archive says of itself is not believed.
"""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import msgspec

AGENT_FILE = "agent.py"

_CHUNK = 64 * 1024
_MIB = 1024 * 1024
_SHOWN_CHARS = 120
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_LOCAL_HEADER = b"PK\x03\x04"
_CENTRAL_HEADER = b"PK\x01\x02"
_END_RECORD = b"PK\x05\x06"
_ZIP64_LOCATOR = b"PK\x06\x07"
_END_RECORD_BYTES = 22
_ZIP64_LOCATOR_BYTES = 20


class InvalidBundle(ValueError):
    """These bytes are no bundle. The words say what is wrong and what would be right."""


class BundleLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes; lengths of paths in bytes of UTF-8."""

    packed_bytes: int = 10 * _MIB
    unpacked_bytes: int = 50 * _MIB
    files: int = 2000
    path_bytes: int = 512
    name_bytes: int = 200
    depth: int = 20


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """`files` by their relative path, `/` between its parts; `agent.py` is always there.

    `checksum` is the SHA-256 (hex) of the bytes that were read, packed as they were.
    """

    files: Mapping[str, bytes]
    checksum: str


def read_bundle(data: bytes, *, filename: str | None = None, limits: BundleLimits | None = None) -> Bundle:
    """Read and check a bundle. `filename` is what it was called where it came from, if that is known.

    Example:
        >>> read_bundle(b"from voicethere.agent import define_agent").files.keys()
        dict_keys(['agent.py'])

    Raises:
        InvalidBundle: it is not one.
    """
    limits = limits or BundleLimits()
    if not data:
        raise InvalidBundle("the bundle is empty: send one .py file, or a .zip with agent.py at its top")
    if len(data) > limits.packed_bytes:
        raise InvalidBundle(
            f"the bundle has {_size(len(data))}; at most {_size(limits.packed_bytes)} are taken: "
            "leave out what the agent does not need to run"
        )
    name = (filename or "").lower()
    if data.startswith((_LOCAL_HEADER, _END_RECORD)):
        files = _read_zip(data, limits)
    elif name.endswith(".zip"):
        raise InvalidBundle(
            f"{_shown(filename)} is named .zip but is no zip archive: make it with any zip tool"
        )
    else:
        _check_python(data, _shown(filename) if filename else "the bundle", alone=True)
        files = {AGENT_FILE: data}
    return Bundle(files=MappingProxyType(files), checksum=hashlib.sha256(data).hexdigest())


# ------------------------------------------------------------------ Python text


def _check_python(data: bytes, what: str, *, alone: bool) -> None:
    """Raises InvalidBundle unless `data` can be Python source: UTF-8 without NUL."""
    right = ": a bundle is one .py file, or a .zip with agent.py at its top" if alone else ""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidBundle(f"{what} looks like UTF-16: save it as UTF-8")
    if b"\0" in data:
        raise InvalidBundle(f"{what} has NUL bytes, so it is no Python source{right}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidBundle(
            f"{what} is not UTF-8 text (byte {error.start} is 0x{data[error.start]:02x}){right}"
        ) from None
    if not text.strip():
        raise InvalidBundle(f"{what} holds nothing but white space: it must call define_agent(...)")


# ------------------------------------------------------------------ zip archives


def _read_zip(data: bytes, limits: BundleLimits) -> dict[str, bytes]:
    _check_directory_size(data, limits)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = dict(_members(archive, limits))
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise InvalidBundle(f"the zip archive is damaged ({str(error)[:200]}): make it again") from None
    except (ValueError, OverflowError, UnicodeError) as error:
        if isinstance(error, InvalidBundle):
            raise
        raise InvalidBundle(f"the zip archive cannot be read ({str(error)[:200]}): make it again") from None
    if AGENT_FILE not in files:
        raise InvalidBundle(f"the zip has no {AGENT_FILE} at its top{_near_miss(files)}")
    _check_python(files[AGENT_FILE], AGENT_FILE, alone=False)
    return files


def _check_directory_size(data: bytes, limits: BundleLimits) -> None:
    """Refuse too many entries before anything is built from them."""
    end = data.rfind(_END_RECORD)
    if end < 0 or len(data) < end + _END_RECORD_BYTES:
        raise InvalidBundle("the zip archive is damaged (its end is missing): upload the whole file")
    if data[max(0, end - _ZIP64_LOCATOR_BYTES) : end].startswith(_ZIP64_LOCATOR):
        raise InvalidBundle("the zip archive uses zip64, which is for archives larger than a bundle may be")
    size = int.from_bytes(data[end + 12 : end + 16], "little")
    if size > end:
        raise InvalidBundle("the zip archive is damaged (its directory is cut off): upload the whole file")
    entries = data.count(_CENTRAL_HEADER, end - size, end)
    if entries > 2 * limits.files:  # entries of folders do not count as files
        raise InvalidBundle(f"the zip has {entries} entries; at most {limits.files} files are taken")


def _members(archive: zipfile.ZipFile, limits: BundleLimits) -> Iterator[tuple[str, bytes]]:
    room = limits.unpacked_bytes
    files: set[str] = set()
    folders: set[str] = set()
    for info in archive.infolist():
        path = _checked_path(info, limits)
        if info.is_dir():
            folders.add(path)
            continue
        _check_kind(info, path)
        if path in files:
            raise InvalidBundle(f"the zip has {_shown(path)} twice: each file once")
        files.add(path)
        if len(files) > limits.files:
            raise InvalidBundle(f"the zip has more than {limits.files} files")
        folders.update(path.rsplit("/", depth)[0] for depth in range(1, path.count("/") + 1))
        content = _content(archive, info, room, limits)
        room -= len(content)
        yield path, content
    both = files & folders
    if both:
        raise InvalidBundle(f"the zip has {_shown(min(both))} both as a file and as a folder")


def _content(archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int, limits: BundleLimits) -> bytes:
    parts: list[bytes] = []
    with archive.open(info) as member:
        while part := member.read(_CHUNK):
            room -= len(part)
            if room < 0:
                raise InvalidBundle(
                    f"the zip unpacks to more than {_size(limits.unpacked_bytes)}: "
                    "leave out what the agent does not need to run"
                )
            parts.append(part)
    return b"".join(parts)


def _checked_path(info: zipfile.ZipInfo, limits: BundleLimits) -> str:
    # `orig_filename` is what the archive says; `filename` is cut at a NUL byte.
    path = info.orig_filename.rstrip("/") if info.is_dir() else info.orig_filename
    shown = _shown(path)
    if "\\" in path:
        raise InvalidBundle(f"the zip has the path {shown}: write / between its parts, not a backslash")
    if path.startswith("/") or path[1:2] == ":":
        raise InvalidBundle(f"the zip has the absolute path {shown}: paths are relative to the bundle")
    parts = path.split("/")
    if ".." in parts:
        raise InvalidBundle(f"the zip has the path {shown}, which leads out of the bundle")
    if "" in parts or "." in parts:
        raise InvalidBundle(f"the zip has the path {shown}: a path is names with / between them")
    if not path.isprintable():
        raise InvalidBundle(f"the zip has the path {shown}, with characters that cannot be printed")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise InvalidBundle(f"the zip has the path {shown}, which is no Unicode text") from None
    if sum(sizes) + len(parts) - 1 > limits.path_bytes or max(sizes) > limits.name_bytes:
        raise InvalidBundle(
            f"the zip has a path that is too long ({shown}): at most {limits.name_bytes} bytes a name and "
            f"{limits.path_bytes} in all"
        )
    if len(parts) > limits.depth:
        raise InvalidBundle(f"the zip has the path {shown}, more than {limits.depth} folders deep")
    return path


def _check_kind(info: zipfile.ZipInfo, path: str) -> None:
    """Only ordinary files, compressed in the ordinary way."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise InvalidBundle(f"the zip has the symbolic link {_shown(path)}: put the file itself in")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise InvalidBundle(f"the zip has {_shown(path)}, which is no ordinary file")
    if info.flag_bits & _ENCRYPTED:
        raise InvalidBundle(f"{_shown(path)} in the zip is encrypted: make the zip without a password")
    if info.compress_type not in _METHODS:
        raise InvalidBundle(
            f"{_shown(path)} in the zip is compressed by method {info.compress_type}: use deflate"
        )


def _near_miss(files: Mapping[str, bytes]) -> str:
    for path in files:
        if path.lower() == AGENT_FILE:
            return f": {_shown(path)} must be named {AGENT_FILE}"
    deeper = sorted(
        (path for path in files if path.endswith(f"/{AGENT_FILE}")), key=lambda path: path.count("/")
    )
    if deeper:
        folder = deeper[0].rsplit("/", 1)[0]
        return f", but {_shown(deeper[0])}: zip what is in {_shown(folder)}, not the folder itself"
    at_top = sorted(path for path in files if "/" not in path and path.endswith(".py"))
    if len(at_top) == 1:
        return f": rename {_shown(at_top[0])} to {AGENT_FILE}"
    return ": the file that calls define_agent(...) must be named so"


def _shown(name: str | None) -> str:
    """A hostile name as one may print it."""
    name = name or ""
    return ascii(name if len(name) <= _SHOWN_CHARS else name[:_SHOWN_CHARS] + "...")


def _size(count: int) -> str:
    return f"{count / _MIB:.1f} MiB" if count >= _MIB else f"{count} bytes"
