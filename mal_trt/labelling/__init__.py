"""Boxes and pictures to masks: the plan, the journal, the pipeline, the writers and `Labeler`."""
