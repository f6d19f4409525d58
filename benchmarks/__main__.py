"""Measure this package side by side with others: `python -m benchmarks [--quick]`.

Prints the table and writes bench.csv and machine.txt into outputs/bench. All rows: ratio > 1 means that we are better.
"""

import argparse
import os
import platform
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from benchmarks import augment, probe, training
from ssl_core.files import atomic_write, outputs

COLUMNS = ["name", "ours", "peer", "ratio", "unit"]
PACKAGES = ("torch", "torchvision", "timm", "kornia", "pillow", "scikit-learn")


def load_average():
    """Processes that wanted a core in the last minute, where the system says it."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


def machine():
    """Cores, processor, threads and versions, in one line."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = named[0] if named else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (f"{os.cpu_count()} cores, {processor}, {platform.system()}, {torch.get_num_threads()} torch threads; "
            f"Python {platform.python_version()}, {versions}")


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, side by side with others.")
    parser.add_argument("--quick", action="store_true", help="one round instead of the median of several")
    rounds = {augment: 15, training: 3, probe: 3}
    if parser.parse_args(arguments).quick:
        rounds = dict.fromkeys(rounds, 1)
    before, table = load_average(), []
    for module, n in rounds.items():
        for row in module.rows(n):
            print(f"{row[0]:66} {row[1]:10.3f} {row[2]:10.3f} {row[4]:9} {row[3]:6.2f} x", flush=True)
            table.append(row)
    folder = outputs() / "bench"
    about = f"{machine()}; load average {before} at the start, {load_average()} at the end\n"
    atomic_write(folder / "bench.csv", pd.DataFrame(table, columns=COLUMNS).to_csv(index=False, lineterminator="\n"))
    atomic_write(folder / "machine.txt", about)
    print(about, end="")


if __name__ == "__main__":
    main()
