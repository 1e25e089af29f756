"""Trains a teacher on rows of the source and writes it as an ONNX file; one of torch's doors, and onnx's only one."""
