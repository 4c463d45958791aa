"""Features of a frozen encoder in place of images."""
