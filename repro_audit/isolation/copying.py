"""Copies of trees, and their removal, whatever a program did to them."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FILES_LIMIT = 20_000
BYTES_LIMIT = 200_000_000
"""What is copied at most."""

PATIENCE = 100
"""Attempts at directories that fill again while they are deleted."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a tree is."""

    files: int
    bytes: int

    @property
    def is_small(self) -> bool:
        """Whether the tree is copied where nothing better can be had."""
        return self.files <= FILES_LIMIT and self.bytes <= BYTES_LIMIT


def measure(
    root: Path,
    mounts: Sequence[Path] = (),
    *,
    most_files: int | None = None,
    most_bytes: int | None = None,
) -> Size:
    """Count what is below `root` but not in `mounts`; only just beyond the limits where it is larger."""
    most_files = FILES_LIMIT if most_files is None else most_files
    most_bytes = BYTES_LIMIT if most_bytes is None else most_bytes
    files = total = 0
    for _, status in walk(root, mounts):
        files += 1
        total += status.st_size if stat.S_ISREG(status.st_mode) else 0
        if files > most_files or total > most_bytes:
            break
    return Size(files=files, bytes=total)


def copy_tree(
    source: Path, destination: Path, mounts: Sequence[Path] = (), *, seen_at: Path | None = None
) -> None:
    """Copy `source` to `destination`, which must not exist.

    Symbolic links go on leading where they led, but links into `source` lead into the copy. `mounts` are not copied:
    a link leads to each. What can not be read is left out, as are sockets, pipes and devices, and what goes meanwhile.

    Args:
        source: what to copy.
        destination: where to.
        mounts: mount points below `source`.
        seen_at: where a program will see the copy; at `destination` if not given.
    """
    directories = [source]
    destination.mkdir(mode=0o700)
    for path, status in walk(source, mounts):
        copy = destination / path.relative_to(source)
        if path in mounts:
            copy.symlink_to(path)
        elif stat.S_ISDIR(status.st_mode):
            directories.append(path)
            copy.mkdir(mode=0o700)
        else:
            copy_file(path, copy, source, seen_at or destination)
    for path in reversed(directories):  # last, since their modes may bar, and their times change
        with suppress(FileNotFoundError):
            take_after(path, destination / path.relative_to(source), owner=False)


def copy_file(path: Path, copy: Path, source: Path, seen_at: Path) -> None:
    """Copy a file or link, of a `source` whose copy will be seen at `seen_at`."""
    with suppress(PermissionError, FileNotFoundError):
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            copy.symlink_to(relinked(path, source, seen_at))
        elif stat.S_ISREG(status.st_mode):
            shutil.copy2(path, copy)
            copy.chmod(mode_as_owner(path))


def relinked(link: Path, source: Path, seen_at: Path) -> str:
    """What the symbolic link `link`, in `source`, must hold to lead to the same in a copy that is seen at `seen_at`."""
    target = link.readlink()
    absolute = Path(os.path.normpath(link.parent / target))
    if not absolute.is_relative_to(source):
        return str(absolute)
    return str(seen_at / absolute.relative_to(source) if target.is_absolute() else target)


def take_after(original: Path, directory: Path, *, owner: bool) -> None:
    """Give `directory` the mode and times of `original`, and its owner too, or else what this user may do there."""
    status = original.stat()
    if owner:
        os.chown(directory, status.st_uid, status.st_gid)
    directory.chmod(stat.S_IMODE(status.st_mode) if owner else mode_as_owner(original))
    os.utime(directory, ns=(status.st_atime_ns, status.st_mtime_ns))


def mode_as_owner(path: Path) -> int:
    """The mode of `path`, with the rights that this user has there, for whatever reason, as its owner's.

    Where this user is the owner, or root, these are the owner's own.
    """
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    if os.geteuid() in {0, status.st_uid}:
        return mode
    rights = sum(bit for bit in (os.R_OK, os.W_OK, os.X_OK) if os.access(path, bit))
    return mode & ~stat.S_IRWXU | rights << 6


def delete(path: Path) -> None:
    """Delete the directory `path` with all that is in it, without following a link, however deep or barred it is.

    Subdirectories are moved up before they are emptied, so that no path and no recursion gets long.
    """
    if not os.path.lexists(path):
        return
    path.chmod(0o700)
    base = os.open(path, DIRECTORY)
    patience = PATIENCE
    try:
        pending = deque(_empty(base, base))
        while pending:
            name = pending.popleft()
            directory = os.open(name, DIRECTORY, dir_fd=base)
            try:
                pending.extend(_empty(directory, base))
            finally:
                os.close(directory)
            try:
                os.rmdir(name, dir_fd=base)
            except OSError:  # not empty: a process that was killed is still in its last write
                patience -= 1
                if not patience:
                    raise
                pending.append(name)
    finally:
        os.close(base)
    path.rmdir()


def _empty(directory: int, base: int) -> list[str]:
    """Unlink what is in `directory`, and move its subdirectories to `base`; their new names there."""
    moved = []
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=directory)
            continue
        new = f"removed-{secrets.token_hex(8)}"
        os.chmod(
            name, 0o700, dir_fd=directory
        )  # else neither its `..` can be changed, nor can it be read
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=base)
        moved.append(new)
    return moved


def walk(root: Path, mounts: Sequence[Path] = ()) -> Iterator[tuple[Path, os.stat_result]]:
    """Everything below `root` that can be listed, breadth first; of `mounts`, themselves but nothing inside."""
    directories = deque([root])
    while directories:
        try:
            with os.scandir(directories.popleft()) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            with suppress(OSError):  # gone, or a mount that may not be looked at
                path = Path(entry.path)
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False) and path not in mounts:
                    directories.append(path)
