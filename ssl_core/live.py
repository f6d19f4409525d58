"""One live line per job at work, and one that stays per job that ended."""

import json
import sys
import time

from ssl_core.cost import cost, former_runs
from ssl_core.runs import read_run

HEARTBEAT = 30  # seconds between two lines where lines cannot be rewritten


class Live:
    """Reads the folders of a plan's jobs and says how far they are; jobs are numbered as they start."""

    def __init__(self, plan, at_once):
        self.waiting, self.at_once, self.total = list(plan.to_run), at_once, len(plan.to_run)
        self.active, self.ended = {}, []
        former = former_runs()
        self.expected = {job.folder: cost(job, former).seconds for job in plan.to_run}
        self.before = {job.folder: self.failure(job) for job in plan.to_run}
        self.rewrite, self.lines, self.spoke = sys.stdout.isatty(), [], time.monotonic()

    def failure(self, job):
        """When its run failed and why, or None."""
        record = read_run(job.folder)
        return (record["finished"], record["reason"]) if record.get("status") == "failed" else None

    def update(self):
        for job in list(self.waiting):
            if (job.folder / "running.ipynb").exists() or self.outcome(job):
                self.waiting.remove(job)
                self.active[job.folder] = (job, len(self.active) + len(self.ended) + 1, time.monotonic())
        for job, number, started in list(self.active.values()):
            if outcome := self.outcome(job):
                del self.active[job.folder]
                seconds = time.monotonic() - started
                self.ended.append((job, seconds))
                self.draw([])
                print(f"{self.head(job, number)}  {seconds:.0f} s" if outcome == "done" else
                      f"{self.head(job, number)}  failed: {outcome}", flush=True)
        if self.rewrite:
            lines = [f"{self.head(job, number)}  {self.progress(job)}" for job, number, _ in self.active.values()]
            self.draw([line[:119] for line in (*lines, self.summary())])
        elif time.monotonic() - self.spoke > HEARTBEAT:
            self.spoke = time.monotonic()
            at_work = "; ".join(f"{job.stage} {job.name} {self.progress(job)}" for job, *_ in self.active.values())
            print(f"        {self.summary()}; {at_work}", flush=True)

    def outcome(self, job):
        """"done", the reason of a failure, or "" while it is at work."""
        if (job.folder / "report.ipynb").exists() and (job.folder / "done.json").exists():
            return "done"
        failure = self.failure(job)
        return failure[1] if failure and failure != self.before[job.folder] else ""

    def head(self, job, number):
        return f"[{number:>{len(str(self.total))}}/{self.total}] {job.stage} {job.name}"

    def progress(self, job):
        """epoch 4/12  612 images/s  0:21 left"""
        try:
            at = json.loads((job.folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return "…"
        words = [f"{name} {at[name]}/{at[name + 's']}" for name in ("epoch", "cell") if name in at]
        words += [f"{at['images_per_s']:.0f} images/s"] if "images_per_s" in at else []
        words += [f"{clock(at['seconds_left'])} left"] if "seconds_left" in at else []
        return "  ".join(words)

    def summary(self):
        left = self.seconds_left()
        return f"{len(self.ended)} of {self.total} jobs ended" + (f", about {clock(left)} left" if left else "")

    def seconds_left(self):
        """From former runs alike, else from the jobs of the stage that ended now; None while nothing is known."""
        left = 0
        for job, spent in [(job, 0) for job in self.waiting] + [
                (job, time.monotonic() - started) for job, _, started in self.active.values()]:
            alike = [seconds for other, seconds in self.ended if other.stage == job.stage]
            expected = sum(alike) / len(alike) if alike else self.expected[job.folder]
            if expected is None:
                return None
            left += max(expected - spent, 0)
        return left / self.at_once

    def draw(self, lines):
        """Lines in place of those drawn last."""
        if lines != self.lines:
            if self.lines:
                print(f"\033[{len(self.lines)}F\033[J", end="")
            print("".join(line + "\n" for line in lines), end="", flush=True)
            self.lines = lines

    def close(self):
        self.draw([])


def clock(seconds):
    """Minutes and seconds, or hours and minutes: 0:21, 2 h 05."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02}"
