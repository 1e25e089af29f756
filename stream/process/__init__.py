"""The stream process around the join: reads, writes exactly once, pauses, reports.

Imports stream.join and stream.kafka.
"""
