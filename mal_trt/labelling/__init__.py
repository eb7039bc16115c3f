"""Boxes and pictures to masks: one picture with `labeler`, a whole document with `run`. How good: `measure`."""
