"""Files that are on the disk when a function returns, and folders that appear whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import threading
import time
import uuid
import zlib
from pathlib import Path
from typing import ClassVar

BLOCK = 2**22  # bytes read at once
SEEN = 10.0  # seconds after which a network file system shows what another machine has made
TEMPORARY = ".oryxstate-"  # how the names of folders begin that are not checkpoints


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def await_visible(path: Path) -> None:
    """Wait until this machine sees a folder that another has made.

    Raises:
        FileNotFoundError: if it does not in a few seconds.
    """
    until = time.monotonic() + SEEN
    while not path.is_dir():
        if time.monotonic() > until:
            raise FileNotFoundError(
                f"'{path}', which process 0 has made, is not there for this process; checkpoints "
                "are on a file system that all processes share, under a path that is the same for "
                "all"
            )
        time.sleep(0.05)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [p for p in (path, *path.parents) if not p.exists()]
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        sync(folder.parent)


def write(path: Path, data: bytes) -> None:
    """Write a new file, durably but for its name in the folder."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def seal(folder: Path) -> dict[str, tuple[int, int]]:
    """Make all that is in a folder durable.

    Returns:
        For each file, by its path from the folder, its size and CRC-32 as read back.
    """
    files = {}
    for root, _, names in os.walk(folder, topdown=False):
        for name in sorted(names):
            path = Path(root, name)
            sync(path)
            files[path.relative_to(folder).as_posix()] = measure(path)
        sync(Path(root))
    return dict(sorted(files.items()))


def measure(path: Path) -> tuple[int, int]:
    """Return the size and the CRC-32 of a file."""
    size = checksum = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            size, checksum = size + len(block), zlib.crc32(block, checksum)
    return size, checksum


def publish(temporary: Path, final: Path) -> None:
    """Give a sealed folder its name; before and after, any reader sees all of it or nothing."""
    os.rename(temporary, final)
    sync(final.parent)


def remove(folder: Path) -> None:
    """Remove a checkpoint, which no reader sees in part."""
    trash = temporary_beside(folder)
    publish(folder, trash)
    shutil.rmtree(trash)


def temporary_beside(path: Path) -> Path:
    """Return a new name for a folder beside another, which is not that of a checkpoint."""
    return path.parent / f"{TEMPORARY}{uuid.uuid4().hex[:12]}"


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left behind."""
    for left in folder.glob(f"{TEMPORARY}*"):
        if left.is_dir():
            shutil.rmtree(left)


class Lock:
    """The right to write into a folder, which the system takes back when its holder dies.

    It is a lock of this process alone, which children that are forked do not hold on to.

    Args:
        folder: the folder, which exists.

    Raises:
        BlockingIOError: if another holds it, with the number of its process as `args[1]`.
    """

    _held: ClassVar[set[Path]] = set()  # in this process, to which the system grants it again
    # The system drops the locks of a process on a file when any of its descriptors is closed, so
    # only one thread at a time may open or close one. Finalizers may run inside: reentrant.
    _guard: ClassVar = threading.RLock()

    def __init__(self, folder: Path):
        self._path = folder.resolve() / ".lock"
        with self._guard:
            if self._path in self._held:
                raise BlockingIOError(errno.EAGAIN, str(os.getpid()))
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._take()
            except BaseException:
                os.close(self._file)
                raise
            self._held.add(self._path)

    def _take(self) -> None:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            holder = os.pread(self._file, 20, 0).decode().strip() or "unknown"
            raise BlockingIOError(error.errno, holder) from None
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        """Let others write."""
        with self._guard:
            os.close(self._file)
            self._held.discard(self._path)
