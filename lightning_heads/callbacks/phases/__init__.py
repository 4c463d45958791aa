"""Training in phases: schedules of what is frozen and of learning rates."""
