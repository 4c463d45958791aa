"""Training in phases: schedules of frozen parameter groups, learning rates and momentum."""
