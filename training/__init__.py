"""MAL's networks, losses, data, training loop and checkpoint readers. Needs the `train` extra (torch, timm)."""
