"""The ground floor: errors, logs, health, folders, Redis, TLS, child processes, services that are away.

Doors: `errors`, `telemetry` (logs and the stop signal), `health`, `outage`, `folder`, `redis`, `frozen_model`.
Imports: no other room; the one that imports redis, numba and OpenTelemetry.
"""
