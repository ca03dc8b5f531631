"""The version: the one place that pyproject.toml, receipts, run folders and `scorefield --version` read."""

__version__ = "0.1.0"
