"""The ground floor: errors, logs, health, folders, Redis, TLS, child processes, services that are away.

Imports no other room. Front: errors, telemetry (logs and the stop signal), health, outage, folder, redis.
"""
