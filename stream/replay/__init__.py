"""Event files: read, checked, and sent to Kafka at a pace.

Doors: `event_file`, `replay`, `dry_run`.
Imports: `stream`, `stream.join`, `stream.kafka`, `runtime`.
"""
