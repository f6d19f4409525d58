"""python -m ssl_core: one function per verb. What is heavy is imported inside, so that --help answers at once."""

import argparse
import contextlib
import sys


def main(argv=None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    cut = argv.index("--") if "--" in argv else len(argv)
    arguments = parser().parse_args(argv[:cut])
    arguments.options = argv[cut + 1:]
    from ssl_core.config import ConfigError

    try:
        return arguments.verb(arguments) or 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 1
    except BrokenPipeError:  # `head` or `less` has seen enough
        sys.stdout = None
        return 1


def parser():
    what = "Studies of self-supervised learning under class imbalance, as notebooks that run in bulk."
    top = argparse.ArgumentParser(prog="python -m ssl_core", description=what)
    verbs = top.add_subparsers(required=True, metavar="VERB")

    def verb(function, **arguments):
        sub = verbs.add_parser(function.__name__, help=function.__doc__.splitlines()[0], description=function.__doc__)
        for name, options in arguments.items():
            flag = name if name in ("study", "name", "encoder", "run") else "--" + name.replace("_", "-")
            sub.add_argument(flag, **options)
        sub.set_defaults(verb=function)

    switch = {"action": "store_true"}
    verb(run, study={"metavar": "STUDY.yaml"},
         dry_run=switch | {"help": "print the plan: jobs, cells, state, hours and GB"},
         why=switch | {"help": "with --dry-run: why each job is to run"},
         measure=switch | {"help": "with --dry-run: run ten steps of each pretraining configuration here"},
         commands=switch | {"help": "with --dry-run: the papermill command of each job"},
         jobs={"type": int, "metavar": "N", "help": "jobs at once, instead of the study's"},
         adopt={"metavar": "FOLDER", "default": "", "help": "count as done what `export --cells` wrote there, "
                "where keys agree"},
         accept_older_code=switch | {"help": "keep results that other code made from the same parameters and inputs"})
    verb(new, study={"metavar": "STUDY.yaml"},
         data={"metavar": "X", "required": True, "help": "a folder, a CSV, an .npz, or the name of a card"},
         label={"default": "", "metavar": "COLUMN", "help": "the CSV column of labels, if it is not `label`"},
         group={"default": "", "metavar": "RULE", "help": "a CSV column, or a pattern (?P<group>...) for paths"},
         replace=switch | {"help": "write over files that say something else"})
    verb(plan, study={"metavar": "STUDY", "help": "its name, or its file"},
         detect={"type": float, "default": 1.0, "metavar": "POINTS", "help": "the difference that matters; 1 if left"},
         protocol={"default": "", "metavar": "NAME", "help": "read by this one, instead of the study's first"})
    verb(audit, name={"metavar": "DATA", "help": "the name of a card, or its file"},
         size={"type": int, "default": 0, "metavar": "N", "help": "pixels of a side, instead of the card's"},
         scores={"default": "", "metavar": "STUDY", "help": "also score its finished cells without the copies"},
         embedding={"default": "", "metavar": "RUN", "help": "also compare by the features of its encoder"})
    verb(tail, name={"metavar": "FEATURES.npz", "help": "of `embed`, or features.npz of a probe"},
         labels={"default": "", "metavar": "FILE.csv", "help": "columns path and label, of some of the images"})
    verb(claims, study={"metavar": "STUDY", "nargs": "*", "help": "names or files; none for all that have results"})
    verb(report, study={"metavar": "STUDY.yaml|STUDY|FILE.zip"},
         figure={"default": "", "metavar": "NAME", "help": "make this figure again, and nothing else"},
         width={"default": "page", "choices": ("page", "column"), "help": "of figures; page if left"},
         paper={"default": "", "metavar": "DIR", "help": "write what a paper takes from the study there"})
    verb(export, study={"metavar": "STUDY", "help": "its name, or its file"},
         to={"metavar": "FOLDER", "help": "where trees go, instead of outputs/STUDY/export: into it with "
             "--layout, else into folders a and c of it"},
         layout={"choices": ("a", "c"), "help": "a: METHOD/pretrained and METHOD/downstream tasks; c: runs/STUDY/"
                 "METHOD_DATA_ARCH_ratioR_splitK with results.txt; without: a, and c for studies of long tails"},
         archive={"metavar": "FILE.zip", "help": "one file of tables, figures, notebooks and records, for `report`; "
                  "alone it writes no tree"},
         weights=switch | {"help": "with --archive: the networks, too"},
         cells={"metavar": "FOLDER", "help": "add rows and records of what is finished, for git and `run --adopt`; "
                "alone it writes no tree"})
    images = {"metavar": "FOLDER|CSV", "required": True, "help": "a folder of images, or a CSV with a column path"}
    machine = {"device": {"default": "auto", "choices": ("auto", "cpu", "cuda", "mps"), "help": "what computes"},
               "threads": {"type": int, "default": 0, "metavar": "N", "help": "CPU threads, instead of all"}}
    verb(embed, encoder={"metavar": "ENCODER", "help": "an encoder.safetensors, or the folder of a pretraining"},
         images=images, out={"metavar": "FEATURES.npz", "required": True, "help": "where the features go"}, **machine)
    verb(predict, run={"metavar": "RUN", "help": "the folder of a finished probe or fine-tuning"}, images=images,
         out={"metavar": "SCORES.csv", "required": True, "help": "one row per image; SCORES_slides.csv per slide"},
         budget={"type": float, "metavar": "B", "help": "the share of labels of the head, instead of the largest"},
         protocol={"default": "", "metavar": "NAME", "help": "whose head, instead of linear or the run's first"},
         specificity={"type": int, "default": 90, "choices": (90, 95), "help": "whose threshold decides `label`"},
         group={"default": "", "metavar": "RULE", "help": "a CSV column, or a pattern (?P<group>...) for paths: the "
                "slide or patient, instead of the study's rule"}, **machine)
    verb(datasets)
    verb(methods, name={"metavar": "NAME", "nargs": "?", "help": "its presets: where each constant comes from"},
         markdown=switch | {"help": "the presets of all methods, as docs/methods.md has them"})
    verb(protocols, name={"metavar": "NAME", "nargs": "?", "help": "of this one alone"},
         markdown=switch | {"help": "as docs/protocols.md has them"})
    verb(splits, name={"metavar": "NAME", "nargs": "?", "help": "of this one alone"},
         markdown=switch | {"help": "as docs/splits.md has them"})
    verb(schema)
    verb(doctor)
    return top


def run(arguments):
    """Make everything of a study that is not there; repeated, it does what is left.

    Exit code 0: all there; 1: something failed, listed; 2: the study is wrong. What follows `--` goes to Snakemake.
    """
    from ssl_core.config import ConfigError
    from ssl_core.study import load_study

    study = load_study(arguments.study)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise ConfigError(f"--jobs {arguments.jobs}: at least one job runs at a time")
    if not arguments.dry_run:
        from ssl_core.engine import run_study

        return run_study(study, arguments.jobs, arguments.accept_older_code, arguments.options, arguments.adopt)
    from ssl_core.dry_run import measured_table, papermill_command, plan_table, unfit
    from ssl_core.engine import planned

    plan, line = planned(study, arguments.accept_older_code, arguments.adopt)
    notes = plan.notes + unfit(plan)
    print(line, end="")
    print(plan_table(plan, arguments.jobs or study.resources.jobs), *notes, sep="\n")
    if arguments.why:
        for job in plan.to_run:
            print(f"{job.stage} {job.name}: {job.why}")
    if arguments.commands:
        for job in plan.jobs:
            print(papermill_command(job))
    if arguments.measure:
        print(measured_table(plan))


def new(arguments):
    """Write a study of your own images, and their card; first say what these data can show."""
    from ssl_core.data.new import write_study

    paths = write_study(arguments.study, arguments.data, label=arguments.label, group=arguments.group,
                        replace=arguments.replace)
    print("written:", *paths, sep="\n  ")
    print(f"next: python -m ssl_core run {arguments.study} --dry-run")


def plan(arguments):
    """How many paired splits it takes to detect a difference of so many points, from what has run of a study."""
    from ssl_core.analysis.power import plan_text
    from ssl_core.config import ConfigError

    if not arguments.detect > 0:
        raise ConfigError(f"--detect {arguments.detect:g}: give percentage points above 0")
    study = study_name(arguments.study)
    with in_one_line():
        print(plan_text(study, arguments.detect, arguments.protocol))


def audit(arguments):
    """Whether the same image or patient stands in two parts of a data set: blocking, warnings, or nothing found.

    Executes 42_audit into outputs/audit/DATA and prints its last table. Exit code 1: something blocking. `run` asks by
    itself for what blocks, and, of sets that are not too large, for near duplicates.
    """
    from ssl_core import last_table

    said, blocking = last_table.audit(arguments.name, arguments.size, arguments.scores, arguments.embedding)
    print(said)
    return int(blocking)


def tail(arguments):
    """How uneven an unlabelled pool is, from its features and, where given, some labels; or that none can tell."""
    from ssl_core.analysis.tail import read, tail

    with in_one_line():
        print(tail(*read(arguments.name, arguments.labels))["sentence"])


def claims(arguments):
    """What the published claims come to in studies that have run: a verdict for each, and why not where there is none.

    Executes 43_claims into outputs/claims and prints its last table.
    """
    from ssl_core import last_table

    print(last_table.claims([study_name(given) for given in arguments.study]))


def report(arguments):
    """Make a study's page again from what its comparison put out, and print where it is; or a figure, or a paper.

    --figure NAME draws one figure from the tables of the study, beside the others; --paper DIR writes a folder that
    LaTeX compiles. A FILE.zip that `export --archive` wrote is first unpacked below outputs/; open only those of people
    you trust, as notebooks hold HTML.
    """
    if arguments.study.endswith(".zip"):
        from ssl_core.archive import unpack

        with in_one_line():
            study = unpack(arguments.study)
    else:
        study = study_name(arguments.study)
    if arguments.figure or arguments.paper:
        import matplotlib

        from ssl_core import paper

        matplotlib.use("Agg")
        with in_one_line():
            said = (paper.figure(study, arguments.figure, arguments.width) if arguments.figure else
                    paper.write(study, arguments.paper, arguments.width))
        print(*said, sep="\n")
        return
    from ssl_core.report import build

    try:
        print(build(study))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1


def study_name(given):
    """The name of a study that is given by it, or by its file."""
    if not given.endswith((".yaml", ".yml")):
        return given
    from ssl_core.study import load_study

    return load_study(given).name


def export(arguments):
    """Write a study's networks as plain state dicts that timm loads, the study as one zip, or its finished cells.

    For research use only. What cannot be written so is listed, in the tree's README.txt in full.
    """
    from pathlib import Path

    from ssl_core.files import outputs

    study = study_name(arguments.study)
    file = None if study == arguments.study else arguments.study
    with in_one_line():
        if arguments.archive:
            from ssl_core.archive import pack

            names = pack(study, arguments.archive, file, arguments.weights)
            print(f"{len(names)} files, {'with' if arguments.weights else 'without'} networks: {arguments.archive}")
        if arguments.cells:
            from ssl_core.adopt import write_cells

            added, there = write_cells(study, arguments.cells, file)
            print(f"{added} runs added, {there} cells there: {arguments.cells}")
        if arguments.to or arguments.layout or not (arguments.archive or arguments.cells):
            from ssl_core.export import export, layouts

            base = Path(arguments.to) if arguments.to else outputs() / study / "export"
            for layout in [arguments.layout] if arguments.layout else layouts(study):
                to = base if arguments.to and arguments.layout else base / layout
                written, left = export(study, to, layout)
                print(f"{len(written)} files: {to}; research use only")
                for reason, what in left.items():
                    print(f"left out, {len(what)}: {reason}")


def embed(arguments):
    """Features of an encoder for images of any size, in a folder or CSV; for research use only.

    An .npz without pickles: h (n, D), paths, the encoder's key, and which images could not be read.
    """
    from ssl_core import predict

    with in_one_line():
        predict.embed(arguments.encoder, arguments.images, arguments.out, device_of(arguments))


def predict(arguments):
    """Scores of a finished probe or fine-tuning for new images, per image and per slide; for research use only.

    Columns: path, group, a probability per class, label, how unlike the training images (percentile of the distance to
    the tenth nearest labelled one among that of the study's test images), problem. Images that cannot be read are
    listed, at the end.
    """
    from ssl_core import predict

    with in_one_line():
        predict.predict(arguments.run, arguments.images, arguments.out, device_of(arguments), arguments.protocol,
                        arguments.budget, arguments.specificity, arguments.group)


@contextlib.contextmanager
def in_one_line():
    """What is wrong with files or values, as one line and exit code 2."""
    from ssl_core.config import ConfigError

    try:
        yield
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from None


def device_of(arguments):
    import os

    from ssl_core.train import use_device

    return use_device(arguments.device, arguments.threads or os.cpu_count() or 1)


def datasets(arguments):
    """The data sets that have a card, and how many images of each class each part holds."""
    from ssl_core.listings import data_sets

    for line in data_sets():
        print(line)


def methods(arguments):
    """The methods of pretraining and the add-ons: paper, arguments, presets; or the presets of one, in full."""
    if arguments.name or arguments.markdown:
        from ssl_core import presets

        print(presets.as_markdown() if arguments.markdown else presets.as_text(presets.about(arguments.name)))
        return
    from ssl_core import listings

    print(*listings.methods(), sep="\n")


def protocols(arguments):
    """How encoders are judged, ours and as published: settings and where they come from."""
    from ssl_core import protocols

    with in_one_line():
        names = [protocols.protocol(arguments.name).name] if arguments.name else protocols.protocol_names()
    print(protocols.as_markdown() if arguments.markdown else protocols.as_text(names))


def splits(arguments):
    """How published studies made data uneven and budgeted labels: presets for the splits of a study."""
    from ssl_core import split_presets

    with in_one_line():
        names = [split_presets.split_preset(arguments.name).name] if arguments.name else \
            split_presets.split_preset_names()
    print(split_presets.as_markdown() if arguments.markdown else split_presets.as_text(names))


def schema(arguments):
    """The JSON schema of a study file, for editors that complete and check."""
    import json

    from ssl_core.study import Study

    print(json.dumps(Study.model_json_schema(), indent=2))


def doctor(arguments):
    """What this machine has: versions, device, threads, disk, cache, a browser for the page."""
    from ssl_core.listings import machine

    print(*machine(), sep="\n")
