"""Masks out: a set of labels written as each format wants it, one file per format. What a label set is: `labels`."""
