"""Which store of bundles an operator's setting names: a directory, or a bucket.

| setting | store |
| --- | --- |
| `data/bundles`, `file:///var/lib/voicethere/bundles` | files of a directory |
| `s3://bucket/prefix?endpoint=http://127.0.0.1:9000&region=eu-central-1` | objects of a bucket |
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from voicethere.adapters.bundles.directory import DirectoryBundleStore
from voicethere.core.ports import BundleStore

_OPTIONS = ("endpoint", "region", "path_style")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PREFIX = re.compile(r"[A-Za-z0-9!_.*'()/-]{0,200}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_EXAMPLE = "s3://bucket/prefix?endpoint=http://host:9000&region=us-east-1"


def open_bundle_store(location: str) -> BundleStore:
    """The store that `location` names; nothing is read or sent yet.

    `endpoint` is the address of a store that is not Amazon's; with one, addresses are path-style unless
    `path_style=false`. Close it with `aclose`.

    Raises:
        ValueError: it names none; the words say what is wrong and what would be right, and repeat no secret.
    """
    if not location.strip() or "\0" in location:
        raise ValueError(f"bundles: a directory or {_EXAMPLE} is needed")
    scheme, separator, _ = location.partition("://")
    if not separator:
        return DirectoryBundleStore(Path(location))
    try:
        parts = urlsplit(location)
        parts.port  # noqa: B018 - a malformed one shows only when it is asked for
    except ValueError as error:
        raise ValueError(f"bundles: this is no address ({error}); one is like {_EXAMPLE}") from None
    if parts.scheme == "file":
        return DirectoryBundleStore(_directory(parts))
    if parts.scheme == "s3":
        return _bucket(parts)
    raise ValueError(
        f"bundles: {scheme[:20]!r} is not supported; give a directory, file:///directory or {_EXAMPLE}"
    )


def _directory(parts: SplitResult) -> Path:
    if parts.netloc or not parts.path:
        raise ValueError("bundles: a file address names an absolute directory, as file:///directory does")
    if parts.query or parts.fragment:
        raise ValueError("bundles: a file address takes no options")
    return Path(unquote(parts.path))


def _bucket(parts: SplitResult) -> BundleStore:
    if "@" in parts.netloc:
        raise ValueError(
            "bundles: credentials do not belong in the address; "
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment"
        )
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"bundles: no bucket in the address, or no name of one; it is like {_EXAMPLE}")
    if not _PREFIX.fullmatch(prefix) or {".", "..", ""} & set(prefix.split("/") if prefix else ["-"]):
        raise ValueError("bundles: a prefix has letters, digits and !_.*'()- between single slashes")
    if parts.fragment:
        raise ValueError(f"bundles: '#' has no meaning in the address; it is like {_EXAMPLE}")
    options = _options(parts.query)
    endpoint, region = options.get("endpoint"), options.get("region")
    if endpoint is not None:
        _require_endpoint(endpoint)
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("bundles: `region` is a name such as eu-central-1")
    style = options.get("path_style", "false" if endpoint is None else "true")
    if style not in ("true", "false"):
        raise ValueError("bundles: `path_style` is true or false")
    try:
        from voicethere.adapters.bundles.s3 import S3BundleStore
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] not in ("boto3", "botocore"):
            raise
        raise ValueError(
            f"bundles: an s3:// address needs the package {missing.name!r}: pip install 'voicethere[s3]'"
        ) from missing
    return S3BundleStore(bucket, prefix, endpoint=endpoint, region=region, path_style=style == "true")


def _options(query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=10)
    except ValueError:
        raise ValueError(f"bundles: the options behind '?' are like those of {_EXAMPLE}") from None
    for name, _ in pairs:
        if name not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise ValueError(f"bundles: {name[:40]!r} is no option of an s3:// address; there are {known}")
    return dict(pairs)


def _require_endpoint(endpoint: str) -> None:
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if fits and not parts.query and not parts.fragment and "@" not in parts.netloc:
        return
    raise ValueError("bundles: `endpoint` is like http://host:9000, without credentials and options")
