"""Writes a project folder from a log and tables of any common form; `graft init`."""
