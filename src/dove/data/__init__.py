"""Image sources, reading, augmentation and sampling."""
