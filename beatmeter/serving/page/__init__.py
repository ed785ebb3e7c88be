"""A page that hears meter in the browser: static files, a model in ONNX, and a small server for them. See
docs/page.md."""
