"""The commands, one file per noun. Each reads settings and project and calls the rooms below.

Imports stand inside the commands, so that each one loads only what it needs.
"""
