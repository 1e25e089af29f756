"""Features: what a row has, from Feast's repository to the vectors that a student sees.

Front files: config (graft.toml's `[features]`), contract (what ids and context may hold), spec (the compiled feature
spec and its encoding), aggregates (running aggregates). Rooms: repo, push, online.

Imports runtime; the one room that imports Feast.
"""
