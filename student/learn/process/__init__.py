"""The learner process around the learner: examples and logits in, versions out."""
