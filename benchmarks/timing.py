"""Fair seconds: the functions take turns, so that a busy machine slows all of them, and medians are compared."""

import statistics
import time


def medians(functions, rounds):
    """{name: median seconds of one call}; with three rounds or more the median leaves the cold first one out."""
    taken = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}
