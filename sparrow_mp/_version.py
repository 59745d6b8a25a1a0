"""The one place that says which version this is: the build and `sparrow --version` both read it here."""

__version__ = "0.1.0"
