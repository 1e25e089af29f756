"""Features: what a row has, from Feast's repository to the vectors that a student sees.

Doors: `config` (graft.toml's table), `contract` (what ids and context may hold), `spec` (the compiled spec),
`aggregates`, and the rooms `repo`, `push`, `online`.
Imports: `runtime`; the one room that imports Feast.
"""
