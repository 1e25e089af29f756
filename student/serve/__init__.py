"""The scoring endpoint: the hot swap, the request contract, the numpy model.

Doors: `server`, `workers`, `swap`, `admission`.
Imports: `student.versions`, `stream`, `features`, `runtime`; no torch, Feast or Kafka.
"""
