"""A store under a prefix of an object store (S3 and what speaks like it, Google Cloud Storage, Azure), by
`obstore`.

The protocol is the same as in a folder; what a file system does by rename and link is done by order and by
conditional puts: a segment's files are uploaded under a name that nobody looks at, and the record that names
it is put only if its number is free. Access keys, region and endpoint come from the environment, as the
providers' own tools read them.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import platform
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from beatmeter.errors import StoreError, shown
from beatmeter.store.backend import Backend, Ranges, UnreadableError, explained, removed
from beatmeter.store.mapped import REMEDY

try:
    import obstore
    from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
    from obstore.store import from_url
except ImportError:
    raise StoreError(
        "object stores need the package obstore", "Install it: pip install 'beatmeter[cloud]'."
    ) from None

_AT_ONCE = 32  # requests
_LIST_FROM = 20  # sizes asked for together from which one listing is cheaper than a request each
_LOCK_TRIES = 5  # for a lock whose holder finishes between our put and our look at whose it is
_READ = 8 << 20  # bytes per request of a file that is read through
_AGAIN = (
    "Nothing that was committed is lost: check the address, the connection and the provider's status, then "
    "run the same command again."
)


@contextlib.contextmanager
def _explained(doing: str, where: str) -> Iterator[None]:
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        hint = "Check the access keys in the environment (AWS_ACCESS_KEY_ID and others) and what they allow."
        raise StoreError(f"{doing} failed at {shown(where)}: {_first_line(error)}", hint) from error
    except (BaseError, OSError) as error:
        raise StoreError(f"{doing} failed at {shown(where)}: {_first_line(error)}", _AGAIN) from error


@contextlib.contextmanager
def _reading(where: str) -> Iterator[None]:
    """As `backend.reading`: only the answer that there is no such object passes."""
    try:
        with _explained("reading", where):
            yield
    except StoreError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise FileNotFoundError(errno.ENOENT, "no such object", where) from error
        raise UnreadableError(error.what, error.hint) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


class Bucket(Backend):
    """`client` is an obstore store with the store's root as its own; `where` its address."""

    def __init__(self, client: Any, where: str) -> None:
        self.client, self.where = client, where
        self._threads: ThreadPoolExecutor | None = None

    @classmethod
    def at(cls, address: str) -> Bucket:
        """The bucket at `s3://bucket/prefix`, `gs://...` or `az://...`. Raises StoreError when it cannot be
        understood."""
        try:
            return cls(from_url(address), address.rstrip("/"))
        except (BaseError, ValueError, OSError) as error:
            raise StoreError(
                f"{shown(address)} cannot be used as an object store: {_first_line(error)}",
                "Write s3://BUCKET/PREFIX.",
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {"where": self.where}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(Bucket.at(state["where"]).client, state["where"])  # type: ignore[misc]

    @property
    def threads(self) -> ThreadPoolExecutor:
        """What requests go through at once."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, "beatmeter-requests")
        return self._threads

    def make(self, *names: str) -> None:
        """Folders come with the first file in them."""

    def exists(self, name: str = "") -> bool:
        return (bool(name) and self.size(name) is not None) or bool(self.list(name))

    def list(self, name: str) -> list[str]:
        with _explained("listing", f"{self.where}/{name}"):
            found = obstore.list_with_delimiter(self.client, name or None)
            paths = [*found["common_prefixes"], *(o["path"] for o in found["objects"])]
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def _below(self, name: str) -> Sequence[dict[str, Any]]:
        """Objects under a prefix, or the one of that name."""
        with _explained("listing", f"{self.where}/{name}"):
            found = [o for page in obstore.list(self.client, name) for o in page]
            if not found:
                with contextlib.suppress(FileNotFoundError):
                    found = [obstore.head(self.client, name)]
        return cast("Sequence[dict[str, Any]]", found)

    def read(self, name: str) -> bytes:
        with _reading(f"{self.where}/{name}"):
            return bytes(obstore.get(self.client, name).bytes())

    def open(self, name: str) -> BinaryIO:
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", name)
        return cast("BinaryIO", io.BufferedReader(_Raw(self, name, size), _READ))

    def ranges(self, name: str, size: int) -> Ranges:
        return _Object(self, name, size)

    def sizes(self, names: Sequence[str]) -> Sequence[int | None]:
        if len(names) < _LIST_FROM:
            return tuple(self.threads.map(self._size, names))
        first = min(
            names
        )  # names of segments begin with their time: what is older than the wanted need not be listed
        with _explained("listing", f"{self.where}/{first}"):
            found = obstore.list(self.client, first.partition("/")[0], offset=first.rpartition("/")[0])
            known: dict[str, int] = {o["path"]: o["size"] for page in found for o in page}
        return tuple(known.get(name) for name in names)

    def survey(self, folder: str, names: Sequence[str]) -> tuple[set[str], Sequence[int | None]]:
        if len(names) < _LIST_FROM:
            return super().survey(folder, names)
        known: dict[str, int] = {o["path"]: o["size"] for o in self._below(folder)}  # one listing tells both
        return {path.removeprefix(f"{folder}/").partition("/")[0] for path in known}, tuple(
            known.get(name) for name in names
        )

    def _size(self, name: str) -> int | None:
        try:
            with _reading(f"{self.where}/{name}"):
                return int(obstore.head(self.client, name)["size"])
        except FileNotFoundError:
            return None

    def put_if_absent(self, name: str, data: bytes) -> bool:
        with _explained("writing", f"{self.where}/{name}"):
            try:
                obstore.put(self.client, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                with contextlib.suppress(FileNotFoundError):
                    return (
                        self.read(name) == data
                    )  # an answer that got lost makes the client ask again: then it is ours
                return False
        return True

    def replace(self, name: str, data: bytes) -> None:
        with _explained("writing", f"{self.where}/{name}"):
            obstore.put(self.client, name, data)

    def note(self, name: str, data: bytes) -> None:
        with contextlib.suppress(StoreError):
            self.replace(name, data)

    def stage(self) -> Path:
        with explained(
            "writing", f"the folder for temporary files (TMPDIR), where commits to {self.where} are prepared"
        ):
            return Path(tempfile.mkdtemp(prefix="beatmeter-"))

    def publish(self, staged: Path, name: str) -> None:
        files = [path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file()]
        last = "zarr.json"  # with it the segment can be adopted
        with _explained("writing", f"{self.where}/{name}"):
            self._all(partial(self._upload, staged, name), (file for file in files if file != last))
            self._upload(staged, name, last)
        self.discard(staged)

    def _upload(self, staged: Path, name: str, file: str) -> None:
        obstore.put(self.client, f"{name}/{file}", staged / file)

    def _all(self, do: Callable[[str], object], names: Iterable[str]) -> None:
        for _ in self.threads.map(do, names):
            pass

    def discard(self, staged: Path) -> None:
        shutil.rmtree(staged, ignore_errors=True)

    def move(self, name: str, to: str) -> None:
        def one(path: str) -> None:
            obstore.rename(self.client, path, to + path[len(name) :])

        with _explained("moving", f"{self.where}/{name}"):
            self._all(one, (o["path"] for o in self._below(name)))

    def remove(self, name: str) -> None:
        with _explained("removing", f"{self.where}/{name}"):
            obstore.delete(self.client, [o["path"] for o in self._below(name)])

    def bytes_below(self, name: str) -> int:
        return sum(int(o["size"]) for o in self._below(name))

    def age(self, name: str, now: float) -> float:
        return now - max((float(o["last_modified"].timestamp()) for o in self._below(name)), default=now)

    def now(self) -> float:
        draft = f"tmp/{secrets.token_hex(8)}"
        self.replace(draft, b"")
        try:
            return max(float(o["last_modified"].timestamp()) for o in self._below(draft))
        finally:
            self.remove(draft)

    @contextlib.contextmanager
    def lock(self, doing: str) -> Iterator[None]:
        """An object that holds whose it is; nothing frees it when that process dies."""
        mine = json.dumps(
            {"doing": doing, "host": platform.node(), "pid": os.getpid(), "token": secrets.token_hex(8)}
        ).encode()
        self._take_lock(mine)
        try:
            yield
        finally:
            with _explained("unlocking", f"{self.where}/lock"), contextlib.suppress(FileNotFoundError):
                if (
                    self.read("lock") == mine
                ):  # somebody may have removed ours by hand, and another be at work
                    self.remove("lock")

    def _take_lock(self, mine: bytes) -> None:
        for _ in range(_LOCK_TRIES):
            if self.put_if_absent("lock", mine):
                return
            with _explained("locking", f"{self.where}/lock"):
                try:
                    holder = self.read("lock")
                except FileNotFoundError:
                    continue  # its holder has just finished
            if holder == mine:  # the answer to the put got lost
                return
            hint = (
                f"Wait until it has finished. If that process is gone, remove the object {self.where}/lock."
            )
            raise StoreError(
                f"{shown(self.where)} is being maintained by {holder.decode(errors='replace')}", hint
            )
        raise StoreError(
            f"{shown(self.where)} is being maintained by one process after the other",
            "Wait until they have finished, then try again.",
        )


class _Object(Ranges):
    """One range request per fetch, sent when it is announced. The length was compared when the store was
    opened."""

    whole_records = True

    def __init__(self, bucket: Bucket, name: str, size: int) -> None:
        self.bucket, self.name, self.expected = bucket, name, size

    def fetch(self, first: int, count: int, stride: int, begin: int, end: int) -> Callable[[], np.ndarray]:
        future = self.bucket.threads.submit(self._get, first * stride, (first + count) * stride)

        def result() -> np.ndarray:
            data: np.ndarray = np.frombuffer(future.result(), np.uint8)
            return data.reshape(count, stride)

        return result

    def _get(self, start: int, stop: int) -> Any:
        where = f"{self.bucket.where}/{self.name}"
        try:
            with _explained("reading", where):
                data: Any = obstore.get_range(self.bucket.client, self.name, start=start, end=stop)
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise removed(where) from error
            if "416 Range Not Satisfiable" not in str(error):
                raise
            data = b""
        if len(data) != stop - start:
            raise StoreError(
                f"{where} ends before byte {stop}, its record says {self.expected} bytes: it was cut or "
                "written over",
                REMEDY,
            )
        return data


class _Raw(io.RawIOBase):
    """An object as a file: a range request for each read."""

    def __init__(self, bucket: Bucket, name: str, size: int) -> None:
        self._bucket, self._name, self._length, self._at = bucket, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._length)
        if stop <= self._at:
            return 0
        try:
            data = obstore.get_range(self._bucket.client, self._name, start=self._at, end=stop)
        except BaseError as error:
            raise OSError(errno.EIO, _first_line(error), self._name) from error
        buffer[: len(data)] = memoryview(data)
        self._at += len(data)
        return len(data)
