"""Boxes, crops and masks as arithmetic on pixels: no files, no models, no runs."""
