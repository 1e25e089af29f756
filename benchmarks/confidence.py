"""How often intervals and evidence of the gate are wrong at any time, on streams whose truth is known.

    python benchmarks/confidence.py [--streams 10000] [--json FILE]

Each stream has 20,000 differences in [-1, 1], looked at after every 50. Their conditional means, given all before, are
at most 0.02, the bound, and often at it. `evidence` is the share of streams that were ever taken for one whose mean had
risen above the bound, `interval` that of streams whose mean was ever outside its interval; both are allowed 5 %.
`seen` is how many examples it took to see a rise by 0.05 after these 20,000, half of the time.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lab.page import MACHINE
from student.evaluate.confidence import Evidence, interval

LENGTH, BLOCK, BOUND, ERROR, RISE = 20_000, 50, 0.02, 0.05, 0.05
KINDS = ("at the bound", "drifting", "stepping", "autocorrelated", "bursts", "rare")

Floats = NDArray[np.float64]


def blocks(kind: str, streams: int) -> Iterator[tuple[Floats, Floats]]:
    """Differences and conditional means, [S, B], block by block."""
    random, before_S = np.random.default_rng(1), np.zeros(streams)
    for at in range(0, LENGTH, BLOCK):
        value_SB, mean_SB = np.zeros((streams, BLOCK)), np.zeros((streams, BLOCK))
        for b in range(BLOCK):
            mean_S, size_S = np.full(streams, BOUND), np.full(streams, 0.4)
            if kind == "drifting":
                mean_S *= np.sin((at + b) / 500)
            elif kind == "stepping":
                mean_S -= 0.1 * ((at + b) // 1_000 % 2)
            elif kind == "autocorrelated":
                mean_S = np.minimum(BOUND, 0.8 * before_S)
            elif kind == "bursts":
                size_S = 0.1 + 0.9 * np.abs(before_S)
            sign_S = random.choice([-1.0, 1.0], streams)
            value_SB[:, b] = mean_S + np.minimum(size_S, 1 - np.abs(mean_S)) * sign_S
            if kind == "rare":
                value_SB[:, b] = np.where(random.random(streams) < 0.04, 1.0, (BOUND - 0.04) / 0.96)
            mean_SB[:, b], before_S = mean_S, value_SB[:, b]
        yield value_SB, mean_SB


def sums(value_SB: Floats) -> Floats:
    """As `interval` takes them."""
    return np.stack([np.full(len(value_SB), value_SB.shape[1]), value_SB.sum(1), (value_SB**2).sum(1)], axis=1)


def errors(kind: str, streams: int) -> dict[str, object]:
    """Shares of streams, and the width of the last interval."""
    one_S, bound_S, threshold = np.ones(streams), np.full(streams, BOUND), np.log(1 / ERROR)
    total_S3, mean_S, evidence = np.zeros((streams, 3)), np.zeros(streams), Evidence(streams)
    missed_S, risen_S = np.zeros(streams, np.bool_), np.zeros(streams, np.bool_)
    for value_SB, mean_SB in blocks(kind, streams):
        total_S3 += sums(value_SB)
        mean_S += mean_SB.sum(1)
        evidence.add(sums(value_SB), bound_S, one_S)
        low_S, high_S = interval(total_S3, one_S, ERROR).T
        missed_S |= (mean_S / total_S3[:, 0] < low_S) | (mean_S / total_S3[:, 0] > high_S)
        risen_S |= evidence.log() >= threshold
    seen_S, examples = np.zeros(streams), 0
    random, open_S = np.random.default_rng(2), ~risen_S
    while np.mean(open_S) > 0.4 and examples < LENGTH:
        value_SB = np.clip(BOUND + RISE + 0.4 * random.choice([-1.0, 1.0], (streams, BLOCK)), -1, 1)
        evidence.add(sums(value_SB), bound_S, one_S)
        examples += BLOCK
        found_S = open_S & (evidence.log() >= threshold)
        seen_S[found_S], open_S = examples, open_S & ~found_S
    found_S = seen_S[seen_S > 0]
    return {
        "stream": kind,
        "evidence": float(risen_S.mean()),
        "interval": float(missed_S.mean()),
        "width": round(float((high_S - low_S).mean()), 4),
        "seen": float(np.quantile(np.where(seen_S > 0, seen_S, np.inf), 0.5)) if len(found_S) else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    rows = []
    for kind in KINDS:
        rows.append(errors(kind, options.streams))
        print(json.dumps(rows[-1]), flush=True)
    if options.json:
        command = f"python benchmarks/confidence.py --streams {options.streams}"
        options.json.write_text(json.dumps({"command": command, "machine": MACHINE, "streams": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
