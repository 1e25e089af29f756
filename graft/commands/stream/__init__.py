"""Replay, stream and dlq: events, the join, and what it could not use.

Doors: `stream`, `dlq`.
Imports: `graft`, `graft.commands`, `stream`, `features`, `teacher_cache`, `runtime`.
"""
