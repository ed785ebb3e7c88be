"""Models outside Python: two ONNX graphs and what a program needs to know of them. See docs/export.md."""
