"""Where uploaded bundles are kept: files of a directory, or objects of an S3-compatible store.

`S3BundleStore` is in `voicethere.adapters.bundles.s3`; it needs the extra `s3`.
"""

from voicethere.adapters.bundles.checksums import BundleDamaged
from voicethere.adapters.bundles.directory import DirectoryBundleStore
from voicethere.adapters.bundles.location import open_bundle_store

__all__ = ["BundleDamaged", "DirectoryBundleStore", "open_bundle_store"]
