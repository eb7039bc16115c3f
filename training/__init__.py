"""MAL's networks, losses, data, training loop and checkpoint readers. Needs torch and timm."""
