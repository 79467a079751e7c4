"""What a trained stage leaves on the disk, and how its weights go on elsewhere."""
