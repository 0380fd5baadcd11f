"""What things are: papers, tasks, recipes, budgets, runs, statistics. Imports no torch."""
