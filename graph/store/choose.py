"""Choice of the store by the settings."""

from __future__ import annotations

from pathlib import Path

from db.embedded.data_directory import default_data_directory
from graph.store.base import Store
from graph.store.directory import Directory
from graph.store.s3 import S3
from settings import Settings


def choose(settings: Settings) -> Store | None:
    """Return the store of this installation; None if none is wanted."""
    if not settings.keeps_files:
        return None
    if (bucket := settings.bucket) is not None:
        return S3(bucket)
    root = Path(settings.files) if settings.files else (settings.data_dir or default_data_directory()) / "files"
    return Directory(root.absolute(), is_shared=settings.files_shared)
