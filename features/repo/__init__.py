"""The Feast repository of a project, its batch tables, and the log of what was pushed.

Doors: `store` (Feast itself), `batch_tables`, `push_log`.
Imports: `features`, `features.online`, `runtime`.
"""
