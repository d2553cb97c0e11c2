"""Files of other formats, read into arrays and written from them: scans, clips, arrays of many channels."""
