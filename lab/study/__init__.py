"""The study: a grid of learners over one example log, without Kafka, and its results as tables and plots.

Front: `command` and `studied`. `log` holds what is learnt, `learners` learn it, `findings` say what came out.
Imports graft and the rooms below it; of lab only `lab.page` and a name of `lab.pairs`.
"""
