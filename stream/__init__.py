"""Kafka: event types, topics, the join of impressions and feedback, dead letters, replay.

Doors: `events`, `tasks`, `config`, `positions`, and the rooms `kafka`, `join`, `process`, `log`, `replay`.
Imports: `features`, `runtime`; the one room that imports Kafka.
"""
