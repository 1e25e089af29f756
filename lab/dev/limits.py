"""What the embedded broker keeps of each topic, and how far its readers may be behind for nothing to be lost.

The broker rewrites all that it keeps once a second, so it keeps little: 20 MB cost a quarter of a core. It removes
whole segments, so it keeps at least its bound less one segment; that must hold all records that a reader has still to
read. The replay waits while a group is too many records behind. A learner commits its position with each version.
"""

from features.spec import FeatureSpec
from stream.topics import TopicLimits

LIMITS = TopicLimits(retention_bytes=6 * 2**20, segment_bytes=2**20)

_KEPT_BYTES = LIMITS.retention_bytes - LIMITS.segment_bytes
_MOST_RECORDS = 4_000
_FEWEST_RECORDS = 50
_FIXED_BYTES = 250  # an example's ids of record, times and labels
_VALUE_BYTES = 20  # a feature, or one number of a list
_SPARE = 2.0  # what is on its way through the join, and rows above the mean


def max_lag(spec: FeatureSpec, impression_bytes: float) -> int:
    """How many records a reader may be behind. `impression_bytes`: of an impression of the project, on average."""
    values = sum(len(f.default) if isinstance(f.default, list) else 1 for f in spec.features)
    example_bytes = _FIXED_BYTES + impression_bytes + _VALUE_BYTES * values
    return max(_FEWEST_RECORDS, min(_MOST_RECORDS, round(_KEPT_BYTES / example_bytes / _SPARE)))
