"""``python -m graft``: the command line."""

from graft.cli import main

if __name__ == "__main__":
    main()
