"""The Feast repository of a project: store (Feast itself), compiler, its batch tables, and the log of what was pushed.

Imports features.online and the front files of features.
"""
