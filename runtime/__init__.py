"""The ground floor: errors, telemetry, folders, Redis, child processes, services that are away.

Imports no other room.
"""
