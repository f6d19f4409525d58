"""Files: where things live, and writing them so that a kill or a full disk leaves the old or the new, never half."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from pathlib import Path


def root():
    """The project's folder, which holds `params/` and `notebooks/`.

    Searched upwards from the working directory, then from this package; the environment variable SSL_CORE_ROOT wins.
    """
    if os.environ.get("SSL_CORE_ROOT"):
        return Path(os.environ["SSL_CORE_ROOT"]).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "params").is_dir() and (folder / "notebooks").is_dir():
            return folder
    raise FileNotFoundError(
        f"{here}: neither this folder nor one above holds params/ and notebooks/; "
        f"change into the project or set SSL_CORE_ROOT"
    )


def outputs():
    """Where runs, tables and figures go: `outputs/` in the project, or SSL_CORE_OUTPUTS."""
    return Path(os.environ.get("SSL_CORE_OUTPUTS") or root() / "outputs").resolve()


def cache():
    """Where decoded images and features are kept for all studies: the user's cache folder, or SSL_CORE_CACHE."""
    if os.environ.get("SSL_CORE_CACHE"):
        return Path(os.environ["SSL_CORE_CACHE"]).resolve()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ssl_core"


def size_text(n_bytes):
    """Bytes as a person reads them: `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def free_bytes(path):
    """Free bytes on the disk that holds `path`, which need not exist yet."""
    path = Path(path).resolve()
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


@contextlib.contextmanager
def naming_full_disk(path):
    """While `path` is written: an error about a full disk names the file, the free space and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise
        free = size_text(free_bytes(Path(path).parent))
        message = f"no room to write {path}: {free} free on its disk (or a quota is used up); free some and run again"
        raise OSError(error.errno, message) from None


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path` (same suffix) to write to; it takes the place of `path` when all went well.

    Nobody ever sees half a file: the temporary one is synchronised to disk, then renamed over the old one in one step.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        with naming_full_disk(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path, data):
    """Write bytes, or text as UTF-8 with `\\n` line ends on every system, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def _plain(value):
    """NumPy numbers and arrays, paths and sets, as JSON knows them."""
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON: {value!r}")


def atomic_json(path, value):
    """Write `value` as indented JSON, whole or not at all; keys keep their order."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n")


def sha256_file(path):
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
