"""The environment: its declarations agree with each other, and what is installed agrees with them."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LINES = (ROOT / "requirements.lock").read_text("utf-8").splitlines()
LOCK = [Requirement(line) for line in LINES if line[:1].isalnum()]
MACHINES = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}


def pins(environment=None):
    """{name: version} of the pins that apply; each name is pinned once."""
    found = [r for r in LOCK if r.marker is None or r.marker.evaluate(environment)]
    versions = {canonicalize_name(r.name): str(r.specifier).removeprefix("==") for r in found}
    assert len(versions) == len(found), "a package is pinned twice"
    return versions


def test_every_line_of_the_lock_is_one_exact_pin():
    assert all(re.fullmatch(r"==[^*,]+", str(r.specifier)) and not r.url for r in LOCK)


@pytest.mark.parametrize("python", ["3.11.7", "3.12.1", "3.13.0"])
@pytest.mark.parametrize("machine", MACHINES)
def test_every_requirement_is_satisfied_by_the_lock(machine, python):
    environment = MACHINES[machine] | {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    locked = pins(environment)
    for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{text}: the lock has {version}"


def test_installed_versions_are_the_locked_ones():
    wrong = {name: (version, found) for name, version in pins().items()
             if (found := importlib.metadata.version(name)) != version and not found.startswith(f"{version}+")}
    assert not wrong, f"locked, installed: {wrong}"


def test_the_lock_holds_the_requirements_of_its_packages():
    locked, absent = pins(), []
    for name in locked:
        for text in importlib.metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                version = locked.get(canonicalize_name(requirement.name))
                if not (version and requirement.specifier.contains(version, prereleases=True)):
                    absent.append(f"{name} needs {text}: the lock has {version}")
    assert not absent, "\n".join(absent)


def test_what_reads_optional_kinds_of_files_is_there_for_their_tests():
    extras = PROJECT["optional-dependencies"]
    assert {*extras["dicom"], *extras["lmdb"]} <= {*extras["test"]}


def test_extras_that_results_or_weights_depend_on_are_pinned():
    for extra in ("bench", "imagenet"):
        for text in PROJECT["optional-dependencies"][extra]:
            assert re.fullmatch(r"==[^*,]+", str(Requirement(text).specifier)), text


def test_conda_environment_is_python_pip_and_the_lock():
    assert yaml.safe_load((ROOT / "environment.yml").read_text("utf-8")) == {
        "name": PROJECT["name"],
        "channels": ["conda-forge", "nodefaults"],
        "dependencies": ["python=3.11", "pip", {"pip": ["-r requirements.lock", "-e ."]}],
    }


def test_one_version_everywhere():
    import ssl_core

    version = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert citation["version"] == version and citation["license"] == PROJECT["license"]
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)[1].rstrip(",") == version
    assert ssl_core.__version__ == version


def test_ci_runs_the_commands_of_the_readme():
    commands = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert commands[-2:] == ["python3 start.py test", "python3 start.py test --slow"]
    assert "set -euo pipefail" in commands
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "python3 start.py report" in readme and "python3 start.py test" in readme
