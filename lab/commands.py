"""The laboratory's commands, which graft's command line finds by their entry points (lab/pyproject.toml)."""

from graft.lazy_group import LazyCommand

STUDY = LazyCommand("lab.study.command:study", "Whether the teacher helps, whom and by how much.")
DEV = LazyCommand("lab.dev.command:dev", "Every process of a project in one terminal, with its events.", "run")
DEMO = LazyCommand("lab.demo.command:demo", "The whole path in one terminal, with a report.", "start")
PAIR = LazyCommand("lab.pairs.command:pair", "Make a domain pair to try graft on.", "start")
