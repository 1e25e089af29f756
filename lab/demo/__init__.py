"""`graft demo`: the whole path on one machine, each stage its own process, and a report of what happened."""
