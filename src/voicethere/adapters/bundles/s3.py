"""Bundles as objects of an S3-compatible store, named and checked by the SHA-256 of their bytes.

The service checks what it receives (Content-MD5), this side checks what comes back. Credentials come from
where the AWS tools look for them (environment, profile, role), never from an address. Knows nothing of what
is inside a bundle.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Literal

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from voicethere.adapters.bundles.checksums import (
    damaged,
    require_checksum,
    require_match,
    require_undamaged,
)
from voicethere.core.ports import BundlesUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_OBJECT_BYTES = 64 * 1024 * 1024
"""More than any bundle may have: an object that is larger is none of ours."""

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or a profile, or a role)"
_WORDS = {
    "NoSuchBucket": "there is no such bucket: create it first",
    "404": "there is no such bucket: create it first",
    "InvalidAccessKeyId": "the access key is not known there: " + _CREDENTIALS,
    "SignatureDoesNotMatch": "the secret key does not fit the access key: " + _CREDENTIALS,
    "AccessDenied": "these credentials may not do this (s3:GetObject, s3:PutObject, s3:DeleteObject and "
    "s3:ListBucket are needed)",
    "403": "these credentials are refused, or may not see the bucket (s3:ListBucket is needed)",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


class S3BundleStore:
    """Implements `BundleStore`: objects `prefix/abcdef…` of one bucket.

    `boto3` runs in threads; it tries a request that fails for a moment up to `attempts` times.

    Example:
        >>> store = S3BundleStore("voicethere", "bundles", endpoint="http://127.0.0.1:9000", path_style=True)
        >>> await store.put(hashlib.sha256(data).hexdigest(), data)
        >>> await store.aclose()
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        path_style: bool = False,
        connect_seconds: float = 5.0,
        answer_seconds: float = 30.0,
        attempts: int = 3,
    ) -> None:
        """`endpoint` is the address of a store that is not Amazon's. Nothing is sent yet.

        Raises:
            ValueError: boto3 cannot make a client of this, for example of a malformed endpoint.
        """
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._where = f"s3://{bucket}/{self._prefix}" + (f" at {endpoint}" if endpoint else "")
        style: Literal["path", "auto"] = "path" if path_style else "auto"
        config = Config(
            connect_timeout=connect_seconds,
            read_timeout=answer_seconds,
            retries={"mode": "standard", "total_max_attempts": attempts},
            s3={"addressing_style": style},
            tcp_keepalive=True,
            # Not every self-hosted store knows the newer checksums; ours are checked here.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session = boto3.session.Session()
        # A self-hosted store has no regions, but a signature needs the name of one.
        region = region or session.region_name or ("us-east-1" if endpoint else None)
        try:
            self._client: S3Client = session.client(
                "s3", endpoint_url=endpoint, region_name=region, config=config
            )
        except (BotoCoreError, ValueError) as error:
            raise ValueError(f"no S3 client can be made for {self._where}: {error}") from error

    async def put(self, checksum: str, data: bytes) -> None:
        """Return once the store has acknowledged the bundle; putting it again changes nothing.

        Raises:
            ValueError: not a SHA-256 in lower-case hex, or not that of `data`, or too large.
            BundlesUnavailable: the store cannot be reached, or refuses; nothing was kept.
        """
        key = self._key(checksum)
        if len(data) > MAX_OBJECT_BYTES:
            raise ValueError(f"a bundle has at most {MAX_OBJECT_BYTES} bytes, this one has {len(data)}")
        await asyncio.to_thread(self._put, key, checksum, data)

    async def get(self, checksum: str) -> bytes:
        """The bundle's bytes.

        Raises:
            ValueError: not a SHA-256 in lower-case hex.
            KeyError: there is none.
            BundleDamaged: there is one, with other bytes than were put.
            BundlesUnavailable: the store cannot be reached, or refuses.
        """
        return await asyncio.to_thread(self._get, self._key(checksum), checksum)

    async def delete(self, checksum: str) -> None:
        """Remove the bundle; nothing happens where there is none.

        Raises:
            ValueError: not a SHA-256 in lower-case hex.
            BundlesUnavailable: the store cannot be reached, or refuses.
        """
        await asyncio.to_thread(self._delete, self._key(checksum))

    async def ping(self) -> None:
        """Raises BundlesUnavailable where the bucket is not there or cannot be used."""
        await asyncio.to_thread(self._ping)

    async def aclose(self) -> None:
        """Close the connections."""
        await asyncio.to_thread(self._client.close)

    def _key(self, checksum: str) -> str:
        require_checksum(checksum)
        return self._prefix + checksum

    def _put(self, key: str, checksum: str, data: bytes) -> None:
        require_match(checksum, data)
        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        try:
            self._client.put_object(Bucket=self._bucket, Key=key, Body=data, ContentMD5=md5)
        except (BotoCoreError, ClientError) as error:
            raise self._unavailable(error) from error

    def _get(self, key: str, checksum: str) -> bytes:
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                if answer["ContentLength"] > MAX_OBJECT_BYTES:
                    raise damaged(checksum)
                data: bytes = body.read()
        except (BotoCoreError, ClientError) as error:
            if _code(error) == "NoSuchKey":
                raise KeyError(checksum) from None
            raise self._unavailable(error) from error
        require_undamaged(checksum, data)
        return data

    def _delete(self, key: str) -> None:
        try:
            self._client.delete_object(Bucket=self._bucket, Key=key)
        except (BotoCoreError, ClientError) as error:
            raise self._unavailable(error) from error

    def _ping(self) -> None:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except (BotoCoreError, ClientError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: BotoCoreError | ClientError) -> BundlesUnavailable:
        """Only names are taken over: what a store says of a request may repeat what was sent to it."""
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return BundlesUnavailable(f"there are no credentials for {self._where}: {_CREDENTIALS}")
        code = _code(error)
        if code is None:
            return BundlesUnavailable(f"cannot reach {self._where} ({type(error).__name__})")
        words = _WORDS.get(code, "try again, and look into its log")
        return BundlesUnavailable(f"{self._where} refuses, {code}: {words}")


def _code(error: BotoCoreError | ClientError) -> str | None:
    if not isinstance(error, ClientError):
        return None
    return _UNSAFE.sub("", str(error.response.get("Error", {}).get("Code", "")))[:60] or "no reason given"
