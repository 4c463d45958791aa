"""The U-Net and its decoders."""
