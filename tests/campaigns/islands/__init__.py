"""Components of one run on machines that share nothing but its folder: bytes, losses, races and slow links."""
