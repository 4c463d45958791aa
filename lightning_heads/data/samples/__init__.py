"""Lists of samples: files and targets, their splits, and csv files that list them."""
