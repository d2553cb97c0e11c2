"""What terminals show: lines of progress, tables, and how numbers and durations are put into words.

Results go to stdout and everything else to stderr. Nothing here decides what is done.
"""
