"""The registry of versions, and what learner and scorer both know of one.

Doors: `registry`, `manifest`, `gate`, `served_tensors`, `version_folder`.
Imports: `stream`, `features`, `runtime`; no torch, Feast or Kafka.
"""
