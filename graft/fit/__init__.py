"""Trains a teacher on the source's log: which columns both domains have, the rows to learn, and how well it does."""
