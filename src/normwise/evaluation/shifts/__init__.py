"""Natural shifts: accuracy under corruptions."""
