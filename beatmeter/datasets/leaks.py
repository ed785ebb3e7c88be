"""Nothing may be learned and tested at once: the same audio, or the same group, in two splits.

Who stays is decided by what the splits are for: test keeps everything, val gives way to test, training to
both; data that joined by `--extra-data` give way to all. Every track that goes is an exclusion that names the
one it would leak into.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from beatmeter.datasets.dataset import ROW, Dataset, Exclusion, precedence
from beatmeter.schema import Track


@dataclass(frozen=True)
class Leak:
    """A track that shares its audio or its group (`what`) with a track of a more precious split."""

    track: Track
    keeper: Track
    what: str  # "audio" or "group"

    def exclusion(self) -> Exclusion:
        """The exclusion of the track that has to go."""
        if self.what == "group":
            return Exclusion.of(
                self.track,
                "leak",
                f"its group {self.track.group!r} is also in {self.keeper.split} ({self.keeper.id})",
            )
        labels = "" if self.track.labels == self.keeper.labels else ", labelled differently there"
        return Exclusion.of(
            self.track, "leak", f"the same audio is in {self.keeper.split} ({self.keeper.id}){labels}"
        )


def leaks(tracks: Iterable[Track], keys: Mapping[str, str] | None = None) -> list[Leak]:
    """Every track that would leak into another split. `keys` maps track ids to track keys (hash of the file's
    bytes)."""
    found: dict[str, Leak] = {}
    splits = [t for t in tracks if t.split is not None]
    by_key: dict[str, list[Track]] = {}
    by_group: dict[str, list[Track]] = {}
    for track in splits:
        by_group.setdefault(track.group, []).append(track)
        if keys and track.id in keys:
            by_key.setdefault(keys[track.id], []).append(track)
    for what, shared in (("audio", by_key), ("group", by_group)):
        for same in shared.values():
            if len({t.split for t in same}) > 1:
                keeper = min(same, key=precedence)
                for track in same:
                    if track.split != keeper.split:
                        found.setdefault(track.id, Leak(track, keeper, what))
    return list(found.values())


def without_leaks(dataset: Dataset, keys: Mapping[str, str] | None = None) -> Dataset:
    """The dataset without copies of the same audio and without leaks between the splits that its tracks have.

    Copies in one split: the first stays, or none when their labels differ. Across splits: see the top of this
    file.
    """
    if keys:
        dataset = dataset.without(_copies(dataset.tracks, keys))
    return dataset.without([leak.exclusion() for leak in leaks(dataset.tracks, keys)])


def _copies(tracks: Sequence[Track], keys: Mapping[str, str]) -> list[Exclusion]:
    by_key: dict[str, list[Track]] = {}
    for track in tracks:
        if track.id in keys:
            by_key.setdefault(keys[track.id], []).append(track)
    excluded: list[Exclusion] = []
    for same in by_key.values():
        if len(same) == 1:
            continue
        best = min(precedence(t) for t in same)
        rivals = [t for t in same if precedence(t) == best]
        labels = [t.labels for t in rivals if t.labels]
        if any(label != labels[0] for label in labels):
            places = ", ".join(f"{t.id} ({'+'.join(t.labels) or 'no label'})" for t in rivals)
            excluded += [
                Exclusion.of(t, "conflict", f"the same audio has different labels: {places}") for t in rivals
            ]
            keeper = None
        else:
            keeper = next((t for t in rivals if t.labels), rivals[0])
            excluded += [
                Exclusion.of(t, "copy", f"the same audio as {_place(keeper)}")
                for t in rivals
                if t is not keeper
            ]
        for other in same:
            if precedence(other) > best:
                if best < 2 and keeper is not None:
                    excluded.append(Leak(other, keeper, "audio").exclusion())
                else:
                    excluded.append(
                        Exclusion.of(other, "copy", f"the same audio as {_place(keeper or rivals[0])}")
                    )
    return excluded


def _place(track: Track) -> str:
    return f"{track.id} ({track.extra[ROW]})" if ROW in track.extra else track.id
