"""From a frozen or fine-tuned encoder to numbers: features, probes, floors, metrics, intervals over test images."""
