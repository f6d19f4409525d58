"""One file of a finished study, to be sent or deposited, and the way back: a zip that is a Research Object Crate.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1): Soiland-Reyes et al., Packaging research artefacts with RO-Crate, Data
Science 5(2), 2022. Equal results give equal bytes: entries are sorted and carry no date of their own.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

import yaml

from ssl_core.config import ConfigError
from ssl_core.files import free_bytes, outputs, replacing, root, sha256_file, size_text
from ssl_core.provenance import PACKAGES
from ssl_core.runs import read_run
from ssl_core.table import read_plan

METADATA = "ro-crate-metadata.json"
TOP = ("results.csv", "summary.csv", "claims.csv", "plan.json", "index.html", "4?_*.ipynb", "4?_*.html", "figures/*")
RUN = ("run.json", "done.json", "history.csv", "model.json", "report.ipynb", "report.html", "failed.ipynb",
       "failed.html", "cells/*.csv", "models/*/history.csv")
WEIGHTS = ("encoder.safetensors", "method.safetensors", "head.safetensors", "models/*/*.safetensors")
FORMATS = {".csv": "text/csv", ".json": "application/json", ".ipynb": "application/x-ipynb+json", ".html": "text/html",
           ".pdf": "application/pdf", ".png": "image/png", ".txt": "text/plain", ".yaml": "application/yaml",
           ".lock": "text/plain", ".safetensors": "application/octet-stream"}
TEXTS = (".csv", ".json", ".ipynb", ".html", ".txt", ".yaml", ".lock")
MUCH = 200  # times its own size: no zip of tables, notebooks and weights unpacks to more


def pack(study, file, study_file=None, weights=False):
    """Write FILE.zip: tables, figures, page, executed notebooks, records of all runs in the plan, study, lock file.

    study_file: by default params/studies/STUDY.yaml, where there is one. weights: with all networks. Returns the names
    in it. Raises FileNotFoundError where the study has not run.
    """
    file, plan, folder = Path(file), read_plan(study), outputs() / study
    if file.suffix != ".zip" or not file.absolute().parent.is_dir():
        raise ConfigError(f"--archive {file}: give a name that ends in .zip, in a folder that is there")
    if not (folder / "results.csv").exists():
        raise FileNotFoundError(f"study {study!r} has no results.csv yet; run it to its end first")
    runs = {f"runs/{job['stage']}/{Path(job['folder']).name}": root() / job["folder"] for job in plan["jobs"]}
    members = {path.relative_to(folder).as_posix(): path for pattern in TOP for path in folder.glob(pattern)}
    members |= {f"{name}/{path.relative_to(run).as_posix()}": path for name, run in runs.items()
                for pattern in RUN + WEIGHTS * weights for path in run.glob(pattern)}
    members = {name: path for name, path in members.items() if path.suffix in FORMATS}
    given = study_file or root() / "params" / "studies" / f"{study}.yaml"
    extra = {"study.yaml": Path(given), "requirements.lock": root() / "requirements.lock"}
    members |= {name: path for name, path in extra.items() if path.exists()}
    entities = []
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as out:
        for name in sorted(members):
            entities.append(add(out, name, without_places(members[name])))
        described = crate(study, plan["question"], entities, [read_run(run) for run in runs.values()])
        add(out, METADATA, json.dumps(described, indent=1, ensure_ascii=False).encode())
    return [*sorted(members), METADATA]


def without_places(path):
    """A file's bytes; in texts, folders of this machine are written as seen from the project."""
    data = path.read_bytes()
    if path.suffix in TEXTS:
        for place, short in ((f"{outputs()}", "outputs"), (f"{root()}{os.sep}", "")):
            data = data.replace(place.encode(), short.encode())
    return data


def add(out, name, data):
    """Put bytes into an open zip under a name, with the same date as all others → the crate's entity of the file."""
    entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
    out.writestr(entry, data)
    return {"@id": quote(name), "@type": "File", "name": name, "encodingFormat": FORMATS[PurePosixPath(name).suffix],
            "contentSize": str(len(data)), "sha256": hashlib.sha256(data).hexdigest()}


def crate(study, question, entities, records):
    """The JSON-LD that says what each file is, who made them with which software, and under which licence."""
    cited = yaml.safe_load((root() / "CITATION.cff").read_text(encoding="utf-8"))
    authors = [{"@id": f"#author{i}", "@type": "Organization" if "name" in person else "Person",
                "name": person.get("name") or f"{person.get('given-names', '')} {person['family-names']}".strip()}
               for i, person in enumerate(cited["authors"])]
    licence = {"@id": f"https://spdx.org/licenses/{cited['license']}", "@type": "CreativeWork",
               "name": cited["license"]}
    packages = next((record["packages"] for record in records if record.get("packages")), {})
    software = [{"@id": f"#{name}", "@type": "SoftwareApplication", "name": name, "version": packages[name]}
                for name in PACKAGES if name in packages]
    ended = max((record["finished"] for record in records if record.get("finished")), default="1980-01-01")
    dataset = {"@id": "./", "@type": "Dataset", "name": f"Study {study}", "datePublished": ended[:10],
               "description": f"{question} Research use only; images that its notebooks show stay under the licence "
               "of their data.", "license": {"@id": licence["@id"]},
               "author": [{"@id": author["@id"]} for author in authors],
               "hasPart": [{"@id": entity["@id"]} for entity in entities]}
    action = {"@id": "#run", "@type": "CreateAction", "name": f"python -m ssl_core run of the study {study}",
              "endTime": ended, "instrument": [{"@id": one["@id"]} for one in software], "result": {"@id": "./"}}
    head = {"@id": METADATA, "@type": "CreativeWork", "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"}}
    return {"@context": ["https://w3id.org/ro/crate/1.1/context", {"sha256": "https://schema.org/sha256"}],
            "@graph": [head, dataset | {"mentions": {"@id": action["@id"]}}, *authors, licence, action, *software,
                       *entities]}


# --- the way back -----------------------------------------------------------------------------------------------------

def unpack(file):
    """Put an archive's study below outputs/, whole or not at all → its name; pages are not taken, they are made anew.

    ConfigError for what is no archive of a study, is damaged, reaches outside its folder, holds a format that could be
    more than data, is too large, or would replace other results.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = sound_entries(archive, file)
            study = str(json.loads(archive.read("plan.json")).get("study"))
            if not re.fullmatch(r"[a-z0-9][a-z0-9_]*", study):
                raise ConfigError(f"{file}: {study!r} is no name of a study")
            target = outputs() / study
            if target.exists():
                refuse_other_results(target, entries, file)
                return study
            outputs().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=outputs(), prefix=".unpack-") as place:
                for name, (entry, digest) in entries.items():
                    extract(archive, entry, Path(place) / study / name, digest, file)
                os.replace(Path(place) / study, target)
            return study
    except (zipfile.BadZipFile, zlib.error, RuntimeError, KeyError, TypeError, AttributeError, json.JSONDecodeError,
            UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: no archive of a study ({' '.join(str(error).split())})") from None


def sound_entries(archive, file):
    """{name: (entry, SHA-256)} of all files that the metadata lists, which have to be all that there are."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    for name, entry in entries.items():
        if not inside(name) or (entry.external_attr >> 16) & 0o170000 not in (0, 0o100000):
            raise ConfigError(f"{file}: refused, as {name!r} in it is no plain file inside the study's folder")
        if PurePosixPath(name).suffix not in FORMATS:
            raise ConfigError(f"{file}: refused, as an archive of a study holds no {name!r}")
    if len({name.lower() for name in entries}) < len(archive.infolist()):
        raise ConfigError(f"{file}: refused, as two files in it have the same name")
    size, room = sum(entry.file_size for entry in entries.values()), free_bytes(outputs())
    if size > min(room, MUCH * Path(file).stat().st_size):
        raise ConfigError(f"{file}: refused, as it would unpack to {size_text(size)}; {size_text(room)} are free")
    digests = {unquote(entity["@id"]): entity["sha256"] for entity in json.loads(archive.read(METADATA))["@graph"]
               if entity.get("@type") == "File"}
    if odd := set(digests) ^ (set(entries) - {METADATA}):
        raise ConfigError(f"{file}: damaged, as {min(odd)!r} is not both in it and in {METADATA}")
    return {name: (entry, digests.get(name)) for name, entry in entries.items()
            if PurePosixPath(name).suffix != ".html"}


def inside(name):
    """Whether a name of a zip's entry stays in the folder that it is unpacked to, on every system."""
    return not re.search(r'[\\:\0]', name) and all(part.strip(". ") for part in name.split("/"))


def refuse_other_results(target, entries, file):
    """ConfigError unless the folder of that name holds the same results."""
    held = target / "results.csv"
    if not held.exists() or sha256_file(held) != entries["results.csv"][1]:
        raise ConfigError(f"{file}: {target} is there and holds other results; move it away, or set SSL_CORE_OUTPUTS "
                          "to another folder")


def extract(archive, entry, path, digest, file):
    """Write one entry; ConfigError when it is not what the metadata says of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as source, open(path, "wb") as copy:
        shutil.copyfileobj(source, copy)
    if digest and sha256_file(path) != digest:
        raise ConfigError(f"{file}: damaged, as {entry.filename} is not what {METADATA} says of it")
