"""`graft dev`: every process of a project in one terminal. The demo is the same on an example pair, with a report."""
