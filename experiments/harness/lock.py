"""Locks that keep a second process out of an output directory.

A lock is `flock` of a file, which the file's text explains to people: who holds it, since when. Why not a file that is
there while a process works (`O_EXCL`): that outlives `kill -9`, and whether its process lives can only be guessed, as
numbers of processes come again and other machines have their own.

- `kill -9`: the kernel ends the lock with its process. The file stays, and the next process takes it over.
- Workers of a sweep that was killed: each holds the lock of its run's directory for as long as it works there, and none
  holds that of the sweep. Programs that a process starts do not inherit its locks. (A process that forks without
  starting a program would share them; no launcher does that.)
- Threads: each lock is its own, so they keep each other out, too.
- Network file systems: NFS of Linux hands the lock to its server, so it holds between machines, and ends once the lease
  of a machine that crashed does. Where a mount keeps locks local (`nolock`, `local_lock`, Lustre's `localflock`), it
  keeps out processes of the same machine alone. Where a file system has no locks at all, a note says so.

The file stays when the lock is released, empty: to remove it would let a process that has opened it before hold a lock
of a file that is no longer there.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import platform
import time
import weakref

from experiments.harness import command

RUN_LOCK, SWEEP_LOCK = ".lock", ".sweep.lock"  # in the directory of a run, of a sweep
_HAS_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)


class Lock(contextlib.AbstractContextManager["Lock"]):
    """A lock that is held until it is released, or until nothing refers to it any more."""

    def __init__(self, path: pathlib.Path) -> None:
        """Takes the lock, or takes it over from a process that has ended.

        Args:
            path: The file, in the directory that is locked.

        Raises:
            ValueError: Another process holds it, or another thread of this one.
            OSError: The file cannot be written.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        close = weakref.finalize(self, os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
            close()
            raise ValueError(
                f"{holder or f'another process works in {path.parent}'}, and a directory takes one process at a time. "
                "Wait until it ends, stop it, or set another hydra.run.dir (hydra.sweep.dir for a sweep)."
            ) from None
        except OSError as error:
            if error.errno not in _HAS_NO_LOCKS:
                close()
                raise
            command.note(
                [
                    f"the file system of {path.parent} has no locks ({error.strerror}), so nothing keeps a second "
                    "process out of it."
                ]
            )
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        text = f"process {os.getpid()} of {platform.node()} works in {path.parent.resolve()} since {since}"
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{text}\n".encode(), 0)
        self._descriptor, self._close = descriptor, close

    def release(self) -> None:
        """Releases the lock."""
        os.ftruncate(self._descriptor, 0)
        self._close()

    def __exit__(self, *_: object) -> None:
        self.release()
