"""What the embedded broker keeps of each topic, and how far its readers may be behind for nothing to be lost.

The broker rewrites all that it keeps once a second, so it keeps little: 20 MB cost a quarter of a core. What it keeps,
a segment less than its bound (whole segments go), must hold all that anyone still reads. The replay waits while a group
is too far behind what it has committed, which for the learner is where its last version ends.
"""

from features.spec import FeatureSpec
from stream.topics import TopicLimits

LIMITS = TopicLimits(retention_bytes=6 * 2**20, segment_bytes=2**20)

_KEPT_BYTES = LIMITS.retention_bytes - LIMITS.segment_bytes
_MOST = 4_000
_FEWEST = 50
_FIXED_BYTES = 250  # an example's ids of record, times and labels
_VALUE_BYTES = 20  # a feature, or one number of a list
_SPARE = 2.0  # what is on its way through the join, and rows above the mean


def max_lag(spec: FeatureSpec, impression_bytes: float) -> int:
    """Records that a reader may be behind, where the project's impressions have so many bytes on average."""
    values = sum(len(f.default) if isinstance(f.default, list) else 1 for f in spec.features)
    example_bytes = _FIXED_BYTES + impression_bytes + _VALUE_BYTES * values
    return max(_FEWEST, min(_MOST, round(_KEPT_BYTES / example_bytes / _SPARE)))
