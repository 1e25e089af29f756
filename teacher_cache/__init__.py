"""The teacher: what scores rows of the target, and its logits in Redis.

Doors: `config`, `teacher` (the interface), `profiles`, `batch_scorer`, and the rooms `kinds`, `domain`, `cache`,
`backfill`.
Imports: `stream`, `features`, `runtime`; the one room that imports onnxruntime.
"""
