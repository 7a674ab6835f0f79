"""A disk that loses what was not synced: what is there after the power went, at any moment."""

from __future__ import annotations

import os
import shutil
import stat
import threading
from pathlib import Path


class Disk:
    """Watches `os.fsync` and `os.rename`, and builds what a loss of power could leave behind.

    A file that was synced has at least that content, a folder that was synced at least those names.
    All else, with the writes of other libraries, may be there, or not, or in part.

    Args:
        root: the folder that is watched.
        monkeypatch: of pytest.
        at_each: called after each of these calls, with this disk.
    """

    def __init__(self, root, monkeypatch, at_each):
        self.root, self.files, self.folders = root, {}, {}
        self._lock, self._at_each = threading.RLock(), at_each
        self._sync(os.open(root, os.O_RDONLY))
        fsync, rename = os.fsync, os.rename

        def watched_fsync(descriptor):
            fsync(descriptor)
            with self._lock:
                self._sync(descriptor)
                self._at_each(self)

        def watched_rename(old, new):
            with self._lock:
                rename(old, new)
                self._at_each(self)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "rename", watched_rename)

    def _sync(self, descriptor):
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as found:
                names = {entry.name: (entry.inode(), entry.is_dir()) for entry in found}
            self.folders[status.st_ino] = names
        else:
            self.files[status.st_ino] = Path(f"/dev/fd/{descriptor}").read_bytes()

    def after_loss(self, into, draw):
        """Write into a new folder what could be left; `draw` is a `random.Random`."""
        now = self._now(self.root)
        self._build(os.stat(self.root).st_ino, into, now, draw)

    def _now(self, root):
        """What is there now: content or names by inode."""
        found = {}
        for folder, names, files in os.walk(root):
            inside = {}
            for name in names + files:
                path = Path(folder, name)
                try:
                    inode = path.stat().st_ino
                    if name in files:
                        found[inode] = path.read_bytes()
                except FileNotFoundError:  # of Orbax, which goes on meanwhile
                    continue
                inside[name] = inode, name in names
            found[Path(folder).stat().st_ino] = inside
        return found

    def _build(self, inode, path, now, draw):
        path.mkdir()
        synced, current = self.folders.get(inode, {}), now.get(inode, {})
        current = current if isinstance(current, dict) else {}
        names = {**synced, **current} if draw.random() < 0.3 else draw.choice([synced, current])
        for name, (inner, is_folder) in names.items():
            if is_folder:
                self._build(inner, path / name, now, draw)
            else:
                (path / name).write_bytes(self._content(inner, now, draw))

    def _content(self, inode, now, draw):
        if inode in self.files:
            return self.files[inode]
        content = now.get(inode, b"")
        content = content if isinstance(content, bytes) else b""
        cut = content[: draw.randrange(len(content) + 1)]
        return draw.choice([b"", cut, bytes(len(content)), content])


def clear(path):
    """Remove a folder that `after_loss` wrote."""
    shutil.rmtree(path)
