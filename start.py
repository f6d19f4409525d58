"""Set up `.venv` beside this file, once, and run one command of the project in it.

Only the standard library is used. Running needs Python 3.11, but the syntax stays that of 3.6: an older Python can then
read the file far enough to say which one it needs.
"""
import contextlib
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "setup.log"
STAMP = VENV / "ready"  # written last, so that its absence tells an interrupted set-up
WHEELS = VENV / "tmp"
LOCK = ROOT / "requirements.lock"
LINUX = sys.platform.startswith("linux")
INSTALLED_GB, WHEELS_GB = (6.4, 3.0) if LINUX else (2.0, 1.0)  # torch for Linux brings CUDA along
DISK_GB = INSTALLED_GB + WHEELS_GB  # pip holds all wheels while it unpacks them

USAGE = """usage: python3 start.py COMMAND

  report   run the quick study (params/studies/quick.yaml) and print the path of its page
  test     run the tests; `test --slow` runs only the slow ones; more arguments go to pytest
  lab      open JupyterLab on the tour
  bench    measure this package side by side with others, into outputs/bench/bench.csv

The first call makes .venv from requirements.lock; later calls find it ready."""


def main(arguments):
    require_python()
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in ("report", "test", "lab", "bench"):
        print(f"error: start.py has no command `{command}`\n\n{USAGE}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a set-up ends its pip, too
    try:
        set_up()
        if command == "report":
            return report(rest)
        if command == "test":
            only_slow = ["--slow", "-m", "slow"] if "--slow" in rest else []
            return hand_over(["pytest"] + only_slow + [a for a in rest if a != "--slow"])
        if command == "lab":
            tour = "--LabApp.default_url=/lab/tree/notebooks/00_tour.ipynb"
            return hand_over(["jupyterlab", f"--ServerApp.root_dir={ROOT}", tour] + rest, batch=False)
        set_up_extra("bench")
        return hand_over(["benchmarks"] + rest)
    except KeyboardInterrupt:
        print("\nStopped. The same command continues, or repairs what was cut short.", file=sys.stderr)
        return 130


def report(options):
    """Run the quick study; the last line printed is the path of its page."""
    code = run(["ssl_core", "run", "params/studies/quick.yaml"] + options)
    page = Path(os.environ.get("SSL_CORE_OUTPUTS") or ROOT / "outputs").joinpath("quick", "index.html")
    if code in (0, 1) and page.exists():  # 1: some cells failed, and the page shows which
        try:
            print(os.path.relpath(page), flush=True)
        except ValueError:  # Windows: the page lies on another drive
            print(page, flush=True)
    return code


# Set-up

def require_python():
    if sys.version_info < (3, 11):
        version = ".".join(str(part) for part in sys.version_info[:3])
        sys.exit(f"error: Python 3.11 or newer is needed and this is {version} ({sys.executable}); "
                 "install a newer one and start this file with it, as in `python3.11 start.py report`")


def require_machine():
    """Refuse, in one line and before anything is downloaded, where a set-up could not end well."""
    absent = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if absent:
        sys.exit(f"error: this Python ({sys.executable}) has no module `{absent[0]}`, which makes .venv; "
                 "on Debian and Ubuntu: apt install python3-venv")
    if free_gb() < DISK_GB:
        sys.exit(f"error: set-up needs about {DISK_GB:.0f} GB of disk and {ROOT} has {free_gb():.1f} GB free; "
                 "free some space or move the project to a larger disk")


def free_gb():
    return shutil.disk_usage(str(ROOT)).free / 1e9


def wanted_stamp():
    """What .venv must have been made from: Python, place (its scripts hold the path), dependencies."""
    content = LOCK.read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    return "Python {}.{}\n{}\n{}\n".format(*sys.version_info[:2], ROOT, hashlib.sha256(content).hexdigest())


def stamp():
    return STAMP.read_text(encoding="utf-8") if STAMP.exists() else ""


def must_be_made_anew():
    """True where .venv is absent, was cut short (a log, no stamp), or belongs to another Python or folder."""
    if not PYTHON.exists() or (LOG.exists() and not STAMP.exists()):
        return True
    if STAMP.exists():
        return stamp().splitlines()[:2] != wanted_stamp().splitlines()[:2]
    made_by_hand = (VENV / "pyvenv.cfg").read_text(encoding="utf-8")  # kept and completed if it is for this Python
    return "= {}.{}.".format(*sys.version_info[:2]) not in made_by_hand


def set_up():
    """Make .venv, or bring it up to date; nothing to do where its stamp agrees."""
    if PYTHON.exists() and stamp() == wanted_stamp():
        return
    anew = must_be_made_anew()
    with locked_log() as log:
        if anew:
            require_machine()
        lines = LOCK.read_text(encoding="utf-8").splitlines()
        names = {re.split("[=; ]", line)[0] for line in lines if line[:1].isalnum()}
        print(f"Setting up: up to {len(names)} packages, about {INSTALLED_GB:.0f} GB, takes minutes; "
              "log in .venv/setup.log", flush=True)
        install(["-r", LOCK.name, "-e", "."], log, anew)


def set_up_extra(name):
    """Install the pinned requirements of an optional extra unless they are there."""
    import sysconfig
    import tomllib
    from importlib.metadata import distributions

    with (ROOT / "pyproject.toml").open("rb") as file:
        pins = tomllib.load(file)["project"]["optional-dependencies"][name]
    site = sysconfig.get_path("purelib", "venv", vars={"base": str(VENV)})
    have = {f"{d.name}=={d.version}".lower().replace("_", "-") for d in distributions(path=[site])}
    if not have.issuperset(pins):
        print(f"Setting up: {', '.join(pins)}; log in .venv/setup.log", flush=True)
        with locked_log() as log:
            install(["-c", LOCK.name] + pins, log)


def install(requirements, log, anew=False):
    """Run pip in .venv, output to the log; the stamp goes first and comes back last."""
    if STAMP.exists():
        STAMP.unlink()
    log.write(f"=== {time.strftime('%Y-%m-%d %H:%M:%S')}, Python {sys.version.split()[0]}, {' '.join(requirements)}\n")
    log.flush()
    if anew:
        for path in VENV.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(str(path))
            elif path != LOG:
                path.unlink()
        base = getattr(sys, "_base_executable", sys.executable)  # never the .venv that was just emptied
        step([base, "-m", "venv", str(VENV)], log)
    WHEELS.mkdir(exist_ok=True)
    step([str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off"] + requirements, log)
    shutil.rmtree(str(WHEELS))
    part = STAMP.with_suffix(".part")
    part.write_text(wanted_stamp(), encoding="utf-8")
    os.replace(str(part), str(STAMP))


@contextlib.contextmanager
def locked_log():
    """The log, held by this process and its children: the system lets go when they end, however they end."""
    try:
        VENV.mkdir(exist_ok=True)
        log = LOG.open("a", encoding="utf-8", errors="replace")
    except OSError as error:
        sys.exit(f"error: cannot write to {VENV} ({error.strerror}); copy the project to a folder of your own")
    with log:
        try:
            lock(log)
        except OSError:
            sys.exit("error: another start.py is setting up .venv; wait for it to end, its log is .venv/setup.log")
        yield log


def lock(log):
    if os.name == "nt":
        import msvcrt
        os.lseek(log.fileno(), 1 << 30, os.SEEK_SET)  # far behind the text, which stays readable
        msvcrt.locking(log.fileno(), msvcrt.LK_NBLCK, 1)
        os.lseek(log.fileno(), 0, os.SEEK_END)
    else:
        import fcntl
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)


def step(command, log):
    """Run one step of the set-up, with a line that moves on a terminal; stop with the log's last lines if it fails."""
    environment = clean_environment()
    if LINUX:  # a /tmp in memory is often too small for the wheels
        environment.setdefault("TMPDIR", str(WHEELS))
    started = time.monotonic()
    child = subprocess.Popen(command, cwd=str(ROOT), env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        while child.poll() is None:
            if sys.stdout.isatty():
                line = f"  {time.monotonic() - started:4.0f} s  {last_lines(1)}"
                print("\r" + line[:78].ljust(78), end="", flush=True)
            time.sleep(0.2)
    finally:
        if sys.stdout.isatty():
            print("\r" + " " * 78 + "\r", end="", flush=True)
        if child.poll() is None:  # stopped from outside
            child.terminate()
            child.wait()
    if child.returncode:
        sys.exit(f"error: set-up failed; the last lines of .venv/setup.log:\n{last_lines(8)}\n"
                 f"What to do: see that the network is reachable and the disk has room ({free_gb():.1f} GB free), mend "
                 "what the lines above name, and run the same command again.")


def last_lines(count):
    """The last lines that pip or venv wrote in this set-up, without warnings."""
    text = LOG.read_text(encoding="utf-8", errors="replace").rpartition("=== ")[2]
    told = [line[:200] for line in text.splitlines()[1:] if line.strip() and not line.startswith("WARNING")]
    return "\n".join(told[-count:])


# Running in .venv

def clean_environment():
    """This process's environment without what would lead Python out of .venv."""
    environment = dict(os.environ, PYTHONUTF8="1")
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.pop(name, None)
    return environment


def command_line(module, batch):
    """The command that runs a module, with its arguments, in .venv, and its environment."""
    environment = clean_environment()
    environment["VIRTUAL_ENV"] = str(VENV)
    environment["PATH"] = str(PYTHON.parent) + os.pathsep + environment.get("PATH", "")
    environment.setdefault("HF_HUB_OFFLINE", "1")  # weights come from files, never from a hub
    if batch:
        environment["MPLBACKEND"] = "Agg"
    return [str(PYTHON), "-m"] + module, environment


def hand_over(module, batch=True):
    """Become the command (POSIX), or run it as a child (Windows, where exec would not wait)."""
    if os.name == "nt":
        return run(module, batch)
    command, environment = command_line(module, batch)
    os.chdir(str(ROOT))
    sys.stdout.flush()
    os.execve(command[0], command, environment)


def run(module, batch=True):
    """Run the command as a child and pass signals on to it; returns its exit code, 128 + n for signal n."""
    command, environment = command_line(module, batch)
    child = subprocess.Popen(command, cwd=str(ROOT), env=environment)

    def forward(number, _):
        if child.poll() is None and not (number == signal.SIGINT and sys.stdin and sys.stdin.isatty()):
            child.send_signal(number)  # a terminal has sent its Ctrl-C to the child already

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
