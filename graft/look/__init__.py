"""What is in a log before anything runs; `graft look`."""
