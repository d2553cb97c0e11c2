"""What terminals show: lines of progress, tables, and how numbers and durations are put into words."""
