"""Box files of other tools as COCO documents: a file for each format, and one that tells which it is."""
