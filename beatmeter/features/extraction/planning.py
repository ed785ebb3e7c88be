"""What there is to extract: tracks against the store, by content, so that copies and renamed files are
known."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from beatmeter.audio.identity import STOPPED, Stamp, stamp, track_keys
from beatmeter.errors import AudioError
from beatmeter.schema import Track
from beatmeter.store import Store


@dataclass(frozen=True)
class Plan:
    """What is to do. `keys` maps track ids to track keys (hash of the file's bytes); `todo` has each key
    once; `failed` maps ids to the reason why they have no features, from this or an earlier run; `stamps` say
    what the files looked like before their bytes were read. A track that was not read because of a stop is in
    none but the last."""

    keys: Mapping[str, str]
    todo: tuple[tuple[str, Track], ...]
    present: int
    duplicates: int
    failed: Mapping[str, str]
    stamps: Mapping[str, Stamp | None]


def plan(
    tracks: Sequence[Track],
    store: Store,
    cache: Path | None,
    retry_failed: bool = False,
    jobs: int = 1,
    stop: threading.Event | None = None,
) -> Plan:
    """Compare the tracks with the store. `cache` is the folder of the memory of track keys. Once `stop` is
    set no file is read."""
    keys: dict[str, str] = {}
    failed: dict[str, str] = {}
    stamps = {track.id: stamp(track.path) for track in tracks}
    for track, found in zip(
        tracks, track_keys([t.path for t in tracks], cache, jobs, stop=stop), strict=True
    ):
        if not isinstance(found, AudioError):
            keys[track.id] = found
        elif found.kind != STOPPED:
            failed[track.id] = str(found)
    have = set(keys.values()) - set(store.missing(keys.values()))
    known_bad = {} if retry_failed else store.failures()
    todo: dict[str, Track] = {}
    present = duplicates = 0
    for track in tracks:
        key = keys.get(track.id)
        if key is None:
            continue
        if key in have:
            present += 1
        elif key in known_bad:
            failed[track.id] = known_bad[key].reason
        elif key in todo:
            duplicates += 1
        else:
            todo[key] = track
    return Plan(keys, tuple(todo.items()), present, duplicates, failed, stamps)
