"""Where the images that a table names are: below a folder under any path, in an installed package, in an LMDB."""

import io
import re
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def package_folder(root):
    """`package:NAME/FOLDER` → that folder of an installed package; of one that is not installed, the text as it is."""
    name, _, inside = root.removeprefix("package:").partition("/")
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0], inside) if spec else Path(root)


def absent(key, wanted, folder):
    """The error that says, for a key of a card, what is expected in a folder and what is found there instead."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    found = f"which holds {', '.join(names[:6])}{more}" if names else "which is empty"
    return FileNotFoundError(f"{key}: there is no {wanted} in {folder}, {found}")


def find_named(folder, files, names):
    """The paths, relative to `folder`, of files with these names among those that fit the glob `files`."""
    found = {}
    for path in sorted(folder.glob(files)):
        if (first := found.setdefault(path.name, path)) != path:
            raise ValueError(f"files: {path.name} is there twice, as {first} and {path}; narrow the glob {files!r}")
    missing = [name for name in names if name not in found]
    if missing:
        raise FileNotFoundError(
            f"files: {len(missing):,} of the {len(names):,} images listed are not among the {len(found):,} files that "
            f"fit {files!r} in {folder}, the first is {missing[0]}"
        )
    return [found[name].relative_to(folder).as_posix() for name in names]


def missing_images(folder, card, paths):
    """Those of `paths` that are neither files below `folder` nor, where the card names one, keys of its LMDB."""
    if card.lmdb:
        with open_lmdb(folder / card.lmdb) as environment:
            keys = keys_of(environment, card)
        return [path for path in paths if path not in keys]
    return [path for path in paths if not (folder / path).is_file()]


@contextmanager
def opened(folder, card):
    """A function from a path to what `read_image` takes: the file below `folder`, or the bytes in the card's LMDB."""
    if not card.lmdb:
        yield lambda path: folder / path
        return
    with open_lmdb(folder / card.lmdb) as environment:
        keys = keys_of(environment, card)

        def place(path):
            if path not in keys:
                return folder / card.lmdb / path  # which is no file, and read as such
            with environment.begin() as transaction:
                source = io.BytesIO(transaction.get(keys[path]))
            source.name = Path(path).name
            return source

        yield place


@contextmanager
def open_lmdb(path):
    """An LMDB, a file or a folder, for reading. Its values have to be the bytes of image files."""
    try:
        import lmdb
    except ImportError:
        raise ImportError(f"{path.name}: LMDB needs lmdb: pip install lmdb") from None
    if not path.exists():
        raise FileNotFoundError(f"lmdb: there is no {path}")
    try:
        environment = lmdb.open(str(path), subdir=path.is_dir(), readonly=True, lock=False, readahead=False)
    except lmdb.Error as error:
        raise ValueError(f"lmdb: {path} cannot be opened: {error}") from None
    with environment:
        yield environment


def keys_of(environment, card):
    """{path: key}: the keys of an LMDB, cut as the card's `path` cuts those of its list; others are passed over."""
    with environment.begin() as transaction:
        keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
    names = {key.decode("utf-8", "replace").replace("\\", "/"): key for key in keys}
    if "(?P<" not in card.path:
        return names
    cut = {name: re.search(card.path, name) for name in names}
    return {match["path"]: names[name] for name, match in cut.items() if match}
