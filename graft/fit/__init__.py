"""Trains a teacher on the source's log: `domain` reads both sides, `shared` matches them, `fit` is the recipe.

`design` is what a teacher takes, `network` learns it, `onnx_file` writes it; the example pairs use these three, too.
"""
