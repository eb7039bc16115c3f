"""What judges: evaluate, compare, benchmark and doctor. It prints nothing; `cli` does."""
