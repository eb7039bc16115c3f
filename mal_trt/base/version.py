"""The version of mal-trt, here because every room may say it and none may import the front door."""

__version__ = "0.2.0"
