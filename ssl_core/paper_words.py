"""What a paper says of how a study was made: methods, checklist and references, out of records, presets and cards."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd

from ssl_core.analysis.tables import rows_text
from ssl_core.analysis.wording import budget_short, words
from ssl_core.augment import RECIPES
from ssl_core.config import CONFIGS, ConfigError
from ssl_core.data import load
from ssl_core.data.cards import read_card
from ssl_core.data.census import holds
from ssl_core.data.pools import pools
from ssl_core.files import root
from ssl_core.presets import all_presets, given
from ssl_core.protocols import protocol
from ssl_core.runs import read_run
from ssl_core.study import load_study

SHOWN = """method method_args wrap encoder encoder_args stem normalisation init image_size recipe optimiser lr
    weight_decay optimiser_args batch epochs steps warmup precision""".split()
TUNED = """train recipe optimiser optimiser_args lr head_lr weight_decay layer_decay drop_path label_smoothing schedule
    batch epochs steps warmup select""".split()
UNITS = {"image_size": "pixels", "batch": "images", "warmup": "of all steps"}
POOLS = {"balanced": "training part, as many of each class", "natural": "training part, as it is",
         "as_pretrain": "the pretraining split"}
COLUMNS = 12  # classes; of more the smallest and largest are given
BOTH = ("The interval of a difference holds two doubts, about other {} (Student's t) and about other test images "
        "(bootstrap by {}); their half widths are added as squares (Banerjee 1960).")


def fields(told, plan, defaults):
    """What the templates of params/paper ask for, by name. defaults: the parameters cell of 10_pretrain."""
    jobs = list(told.jobs.values())
    records = [read_run(root() / job["folder"]) for job in jobs]
    cards = {name: read_card(name) for name in sorted({job["seen"]["dataset"] for job in jobs}
                                                      | {job["own"]["dataset"] for job in jobs})}
    trained = told.table[told.table.pretrain_dataset != ""] if (told.table.pretrain_dataset != "").any() else told.table
    n = trained.groupby("dataset")[["draw_seed", "order_seed"]].apply(lambda rows: len(rows.drop_duplicates()))
    grouped = told.table.n_groups.gt(0) & (told.table.n_groups < told.table.n)
    kinds = sorted({job["seen"]["split_kind"] for job in jobs})
    splits = f"{n.max()} split{'s' * bool(n.max() > 1)}"
    return {
        "study": plan["study"], "question": plan["question"],
        "images": " ".join(map(stands_for, cards.values(), cards)), "flow": flow(jobs, records, told.table),
        "hyper": hyper(jobs, plan["study"], defaults), "protocols": protocols_of(told.table, jobs), "splits": splits,
        "doubts": doubts(told.summary, splits, grouped.any()),
        "floors": ", ".join(map(words, told.table.arm[(told.table.pretrain_dataset == "") & told.table.value.notna()]
                                .unique())) or "nothing",
        "families": ", ".join(sorted(set(told.summary.family))) or "none", "hardware": hardware(records),
        "commits": ", ".join(commits(records)) or "not known",
        "licences": rows_text([{"data set": name, "title": card.title, "licence": card.licence or "not known",
                                "source": card.source, "to cite": card.citation} for name, card in cards.items()]),
        "sources": " ".join(f"{card.title} ({card.source})." for card in cards.values()),
        "disjoint": "by group (patient, slide or the like)" if grouped.any() else
                    "by image; no group (patient, slide) is known, so that images of one could stand on both sides",
        "near_copies": near_copies(plan, cards),
        "samples": f"{told.table.n.max():,.0f} test images, {splits}",
        "imbalance": f"it is what is studied: splits {', '.join(kinds)}; ratios "
                     + ", ".join(f"1:{ratio:g}" for ratio in sorted({job["seen"]["ratio"] for job in jobs})),
    }


def near_copies(plan, cards):
    """What was looked for before the study, and found; a blank of the authors where no record says so."""
    if "near" not in plan:
        return "[to be filled by the authors: outcome of `python -m ssl_core audit DATA`]"
    told = {name.partition(",")[0] for name in plan["near"]}  # of two sizes: "NAME, 32 px"
    quiet = [name for name in cards if Path(name).stem not in told]
    said = [f"{name}: {text.partition(': python -m')[0].removesuffix('. Look at them')}"
            for name, text in plan["near"].items()]
    none = [f"{', '.join(quiet)}: none found across parts by the search of thumbnails"] if quiet else []
    return "; ".join([*said, *none])


def stands_for(card, name):
    """Real or synthetic, and of a stand-in that it is one."""
    about = (f" that stand in for `{card.rehearses}` and hold nothing of it: a rehearsal, no result on "
             f"`{card.rehearses}`") if card.rehearses else ""
    return f"`{name}`: {'synthetic' if card.synthetic else 'real'} images{about}."


def doubts(summary, splits, grouped):
    """What the interval of a difference is over, in sentences, by what `contrasts` calls its test."""
    by = "whole groups" if grouped else "image, within each class"
    alone = f"is over test images alone (paired bootstrap by {by}); nothing is known about other splits or seeds."
    over = [kind for kind in ("splits", "seeds") if summary.test.str.contains(f"over {kind}").any()]
    if not over:
        return f"There is one split and one seed. The interval of a difference {alone}"
    unit = (f"The unit of replication is the split ({splits}): runs of one split are averaged first, and comparisons "
            "are paired by split." if "splits" in over else "There is one split, and pairs are its seeds.")
    return f"{unit} {BOTH.format(over[0], by)}" + f" That of a single pair {alone}" * bool(summary.n_pairs.eq(1).any())


def flow(jobs, records, table):
    """Tables of images, groups and classes by part, then of the pretraining splits, then of the labels of budgets."""
    said = []
    for name, size in sorted({(job["own"]["dataset"], job["own"]["image_size"]) for job in jobs}):
        job = next(job for job in jobs if job["own"]["dataset"] == name)
        try:
            data = load(name, size)
        except (OSError, ValueError) as error:
            said += [f"**{name}** is not here to be counted: {' '.join(str(error).split())}"]
            continue
        parts = pools(data, **CONFIGS[job["stage"]](**job["own"]).pool_arguments())
        rows, has = [], holds(data)
        used = np.concatenate([parts.unlabelled, parts.labelled, parts.val, parts.test])
        unused = np.setdiff1d(np.arange(len(data)), used)
        for part, at in (("all images", slice(None)), ("pretraining, the first of the splits below", parts.unlabelled),
                         ("labelled, what budgets are drawn from", parts.labelled), ("validation", parts.val),
                         ("test", parts.test), ("in none of these", unused)):
            mine = has[at]
            if not len(mine):
                continue
            each = mine.sum(0)
            by_class = (dict(zip(data.classes, each)) if len(each) <= COLUMNS else
                        {"smallest class": each.min(), "largest class": each.max()})
            groups = {"groups": len(set(data.groups[at]))} if data.grouped else {}
            rows.append({"part": part, "images": len(mine), "with a label": int(mine.any(1).sum()), **groups,
                         **by_class})
        said += [f"**{name}**, counted with draw {job['seen']['draw_seed']}", rows_text(rows)]
    splits = pd.DataFrame([{"data set": r["parameters"]["dataset"], "split": r["parameters"]["split_kind"],
                            "ratio": f"1:{r['parameters']['ratio']:g}", "twin": r["parameters"]["twin"],
                            "images": r["n_unlabelled"], "largest class": max(r.get("counts") or [np.nan]),
                            "smallest class": min(r.get("counts") or [np.nan])}
                           for r in records if "n_unlabelled" in r])
    if len(splits):
        by = ["data set", "split", "ratio", "twin"]
        rows = splits.groupby(by, sort=False).agg([span, "size"])
        rows = pd.DataFrame({name: rows[name]["span"] for name in splits if name not in by}
                            | {"pretrainings": rows["images"]["size"]}).reset_index()
        said += ["Pretraining splits", rows_text(rows.to_dict("records"))]
    labels = table[table.n_labelled > 0].groupby(["dataset", "label_pool", "budget"]).n_labelled.agg(span)
    return "\n\n".join([*said, "Labels of a budget", rows_text([
        {"data set": name, "drawn from": POOLS[pool], "budget": budget_short(budget), "labelled images": n}
        for (name, pool, budget), n in labels.items()])])


def span(values):
    if values.isna().all():
        return "not known"
    return f"{values.min():,.0f}" + (f" to {values.max():,.0f}" if values.nunique() > 1 else "")


def hyper(jobs, study, defaults):
    """A table for each pretrained arm: setting, value, where it comes from."""
    try:
        presets = {arm.name: arm.preset for arm in load_study(root() / "params" / "studies" / f"{study}.yaml").arms}
    except (ConfigError, OSError):
        presets = {}
    there = {(p.method, given(p)): {row.field: row for row in p.constants} for p in all_presets()}
    said = []
    for arm, job in {job["arm"]: job for job in reversed(jobs) if job["stage"] == "pretrain"}.items():
        own, rows = job["own"], []
        known = there.get((own["method"], presets.get(arm)), {})
        for name in SHOWN:
            inner = own.get(name) if name.endswith("_args") else None
            each = {f"{name}.{key}": v for key, v in inner.items()} if inner else {name: own[name]}
            for field, value in each.items() if own[name] or name not in ("epochs", "steps") else ():
                row = known.get(field)
                source = (f"preset {presets[arm]}: {row.source}" if row and row.value == value else "default"
                          if own[name] == defaults.get(name) else "this study")
                rows.append({"setting": field, "value": shown(field, value), "from": source})
        said.insert(0, f"**{arm}**\n\n{rows_text(rows)}")
    return "\n\n".join(said) or "Nothing was pretrained."


def shown(field, value):
    """A setting as a reader needs it: with its unit, a recipe of views with what it does, and "none" for nothing."""
    if field == "recipe":
        does = RECIPES[value] if isinstance(value, str) else value
        return f"{value}: " * isinstance(value, str) + (", ".join(f"{k} {json.dumps(v)}" for k, v in does.items() if v)
                                                        or "the whole image")
    text = value if isinstance(value, str) else json.dumps(value) if value not in ([], {}) else "none"
    return f"{text} {'epochs' if field == 'warmup' and value >= 1 else UNITS.get(field, '')}".strip()


def protocols_of(table, jobs):
    """Each protocol that was used: what it is, where it is from, and its settings in this study."""
    said = []
    for name in [name for name in dict.fromkeys(table.protocol) if name and name != "none"]:
        p = protocol(name)
        own = next(job["own"] for job in jobs if name in job["own"].get("protocols", [job["own"].get("protocol")]))
        used = own["heads"].get(name, {}) if p.stage == "probe" else {key: own[key] for key in TUNED if own[key]}
        each = (f"{key} {shown(key, value)}" + " (this study's)" * (bool(p.values) and value != p.values.get(key))
                for key, value in used.items())
        said.append(f"- `{name}`: {p.about} From: {p.source}" + f" Settings: {'; '.join(each)}." * bool(used))
    return "\n".join(said)


def commits(records):
    return sorted({r["git"][:10] + r["git"][40:] for r in records if r.get("git")})


def hardware(records):
    done = [r for r in records if r.get("seconds")]
    hours = pd.DataFrame([{"stage": r["stage"], "jobs": 1, "hours": r.get("job_seconds", r["seconds"]) / 3600}
                          for r in done],
                         columns=["stage", "jobs", "hours"]).groupby("stage", sort=False).sum().reset_index()
    memory = max([max(r["peak_memory_mb"].values()) for r in done if r.get("peak_memory_mb")], default=0)
    packages = sorted({f"{name} {number}" for r in done for name, number in r.get("packages", {}).items()})
    of = {what: ", ".join(sorted({str(r.get(what)) for r in done}))
          for what in ("device", "threads", "system", "python")}
    rows = hours.assign(hours=hours.hours.map("{:.2f}".format)).to_dict("records")
    return (f"Device: {of['device']}; threads of a job: {of['threads']}; {of['system']}, Python {of['python']}; "
            f"{', '.join(packages)}. Most memory of a job: {memory:,} MB. Commits: {', '.join(commits(records))}. "
            f"Time of the jobs as measured, {hours.hours.sum():.2f} hours in all; several may have run side by "
            f"side:\n\n{rows_text(rows)}")


# --- references -------------------------------------------------------------------------------------------------------

def used_by(told, study):
    """Names of all that a study used: methods, their arguments, add-ons, networks, cards and what stands in for them,
    libraries, its system."""
    jobs = list(told.jobs.values())
    trained = [job["own"] for job in jobs if job["stage"] == "pretrain"]
    sets = {name for job in jobs for name in (job["own"]["dataset"], job["seen"]["dataset"])}
    made = {read_card(name).made.get("from") for name in sets}
    packages = {name for job in jobs for name in read_run(root() / job["folder"]).get("packages", {})}
    return ({own["method"] for own in trained} | {add["name"] for own in trained for add in own.get("wrap") or ()}
            | {name for own in trained for name in own["method_args"]}
            | {re.match("[a-z]+", own["encoder"])[0] for own in trained} | sets | made | packages
            | {"statistics", "checklist"} | {f"system_{m[1]}" for m in [re.match("([a-e])_", study)] if m})


def references(used):
    """The entries of params/references.bib whose `usedby` names something in `used`, without that field; and a bare
    one for each data set that has none, out of its card."""
    text = (root() / "params" / "references.bib").read_text(encoding="utf-8")
    found, known = [], set()
    for entry in re.findall(r"(?ms)^@.*?\}\}$", text):
        names = set(re.split(r"[,\s]+", re.search(r"usedby = \{([^}]*)\}", entry)[1]))
        known |= names
        if names & used:
            found.append(re.sub(r",\s*usedby = \{[^}]*\}", "", entry))
    for name in sorted(filter(None, used - known)):
        try:
            card = read_card(name)
        except ConfigError:
            continue
        if card.citation:
            found.append(f"@misc{{data_{name},\n  title = {{{card.title}}},\n  note = {{{card.citation.strip()}}}}}")
    return "\n\n".join(found) + "\n"
