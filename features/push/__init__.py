"""Writes running aggregates and profiles to the online store.

Doors: `pusher`; `pushed_rows` and `push_order` keep owner and order.
Imports: `features`, `features.online`, `features.repo`, `runtime`.
"""
