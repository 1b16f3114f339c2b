"""The one training loop, its schedule, its validation, and the recipes."""
