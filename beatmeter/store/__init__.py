"""The feature store: a Zarr v3 folder per fingerprint that survives kill -9, full disks, bad bits and many
writers."""

from beatmeter.store.commit import UnstorableError
from beatmeter.store.failures import Failure
from beatmeter.store.reader import MissingTracksError, Ragged, Snapshot
from beatmeter.store.store import Receipt, Store, list_stores, store_folders, stores_in

__all__ = [
    "Failure",
    "MissingTracksError",
    "Ragged",
    "Receipt",
    "Snapshot",
    "Store",
    "UnstorableError",
    "list_stores",
    "store_folders",
    "stores_in",
]
