"""Vision: attention blocks, hosts that take them, published backbones, image classification."""
