"""Terms of the training objectives. They see tensors, never models."""
