"""Where uploaded bundles are kept: files of a directory."""

from voicethere.adapters.bundles.directory import BundleDamaged, DirectoryBundleStore

__all__ = ["BundleDamaged", "DirectoryBundleStore"]
