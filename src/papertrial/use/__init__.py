"""Training one method and using what came out: fit, load, evaluate, predict, embed."""
