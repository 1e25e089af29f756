"""The stream process around the join: reads, writes exactly once, pauses, reports.

Doors: `run`.
Imports: `stream`, `stream.join`, `stream.kafka`, `features`, `runtime`.
"""
