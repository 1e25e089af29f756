"""`graft demo`: `graft pair make`, `graft dev` until all is learnt, `graft study`, and one report of the three.

Front: `command`; `run` has the order. Imports lab.dev and lab.pairs; the study runs as a process of its own, because it
imports Feast, whose metrics folder the stages of dev would inherit.
"""
