"""What ran, on what: commit, packages, device, memory. Never who or where."""

import contextlib
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ssl_core.files import root, sha256_file

PACKAGES = "torch torchvision timm numpy scipy scikit-learn pandas ssl-imbalance".split()


def now():
    return datetime.now(UTC).isoformat(timespec="seconds")


def portable(values):
    """Paths relative to the project, or bare names outside it; also inside mappings, lists and NAME=PATH."""
    def shorten(value):
        if isinstance(value, dict):
            return portable(value)
        if isinstance(value, list):
            return [shorten(one) for one in value]
        if isinstance(value, str) and "=" in value:
            return "=".join(shorten(part) for part in value.split("="))
        if not (isinstance(value, str) and Path(value).is_absolute()):
            return value
        inside = Path(value).is_relative_to(root())
        return Path(value).relative_to(root()).as_posix() if inside else Path(value).name
    return {name: shorten(value) for name, value in values.items()}


def circumstances():
    """Commit ("…, with changes" where files differ from it), Python, system, versions of what computes."""
    def git(*words):
        return subprocess.run(["git", *words], cwd=root(), capture_output=True, text=True, check=True).stdout.strip()
    try:
        commit = git("rev-parse", "HEAD") + (", with changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        commit = "no repository"
    packages = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return {"git": commit, "python": platform.python_version(), "system": platform.system(), "packages": packages}


def provenance(study, file, records):
    """What made a study's tables: commits, hashes of lock and study file, keys, code. records: run.json by name."""
    def digest(path):
        return sha256_file(path) if path.exists() else ""
    return {"study": study, "commits": sorted({record["git"] for record in records.values()}),
            "lock": digest(root() / "requirements.lock"), "study_file": digest(file), "n_keys": len(records),
            "keys": {record["key"]: name for name, record in sorted(records.items())},
            "code": {name: digest for record in records.values() for name, digest in record["parts"]["code"].items()
                     if name != "methods"}}  # of that one, the functions alone


def device_name(wanted):
    """What "auto" came to, and which graphics card; torch is asked only when the run has used it."""
    torch = sys.modules.get("torch")
    if torch and wanted in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda ({torch.cuda.get_device_name()})"
    if torch and wanted in ("auto", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu"


def peak_memory_mb():
    """The most memory this process has held, and on a graphics card the most tensors held."""
    torch = sys.modules.get("torch")
    card = torch.cuda.max_memory_allocated() if torch and torch.cuda.is_available() else 0
    try:
        import resource
    except ImportError:  # Windows
        return {"graphics": round(card / 1e6)}
    unit = 1 if sys.platform == "darwin" else 1024
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"process": round(process / 1e6), "graphics": round(card / 1e6)}
