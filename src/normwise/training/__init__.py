"""The one training loop, its schedule, its validation rows, and the recipes."""
