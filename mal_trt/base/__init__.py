"""What everything stands on: errors, progress, digests, caches, and what the machine says of its GPU."""
