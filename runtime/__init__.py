"""The ground floor: errors, telemetry, folders, the Redis connection, child processes. Imports no other room."""
