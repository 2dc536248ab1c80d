"""Pictures of reconstructions, and photos of any size as tiles."""
