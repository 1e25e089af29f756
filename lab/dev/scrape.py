"""Reads the Prometheus metrics of the stages, and adds up their counters over restarts."""

import http.client
import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Labels = tuple[tuple[str, str], ...]
Samples = Mapping[tuple[str, Labels], float]

_TIMEOUT_SECONDS = 1.0


def fetch_samples(port: int) -> Samples | None:
    """Every sample at ``http://127.0.0.1:port/metrics``; None while nothing answers there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_SECONDS) as reply:
            return parse_samples(reply.read().decode())
    except (OSError, http.client.HTTPException):  # not started yet, or restarting
        return None


def parse_samples(text: str) -> Samples:
    """The samples of a Prometheus text page, keyed by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class StageMetrics:
    """The metrics of one stage, also over restarts: when a counter falls, its earlier value is added to the new one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._samples: Samples = {}
        self._carried: dict[tuple[str, Labels], float] = {}

    def refresh(self) -> bool:
        """Read the page again; False, with the old values kept, while the stage does not answer."""
        samples = fetch_samples(self._port)
        if samples is None:
            return False
        self.update(samples)
        return True

    def update(self, samples: Samples) -> None:
        """Take `samples` as the newest page."""
        for key, value in self._samples.items():
            if key[0].endswith("_total") and samples.get(key, 0.0) < value:
                self._carried[key] = self._carried.get(key, 0.0) + value
        self._samples = samples

    def total(self, name: str, **labels: str) -> float:
        """The sum of the counter `name` over all series that have `labels`, restarts included; 0 before the first."""
        keys = {key for key in (*self._samples, *self._carried) if _matches(key, name, labels)}
        return sum(self._samples.get(key, 0.0) + self._carried.get(key, 0.0) for key in keys)

    def totals(self, name: str, label: str) -> dict[str, float]:
        """The counter `name` by the values of `label`."""
        series = [dict(labels) for one, labels in (*self._samples, *self._carried) if one == name]
        return {value: self.total(name, **{label: value}) for value in sorted({of[label] for of in series})}

    def gauge(self, name: str, **labels: str) -> float | None:
        """The sum of the gauge `name` over all series that have `labels`; None before the first."""
        values = [value for key, value in self._samples.items() if _matches(key, name, labels)]
        return sum(values) if values else None


def _matches(key: tuple[str, Labels], name: str, labels: Mapping[str, str]) -> bool:
    return key[0] == name and set(labels.items()) <= set(key[1])
