"""The commands, by noun; graft/cli.py lists them. Each reads settings and project and calls the rooms below.

Front: options.py, what they share. Imports stand inside the commands, so that each one loads only what it needs.
"""
