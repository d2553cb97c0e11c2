"""What training costs: operators and arithmetic of a step, and other systems of equal cost to compare with."""
